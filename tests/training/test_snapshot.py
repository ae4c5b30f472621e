"""A run that is cut and taken up again ends bit for bit where the whole run ends."""

from itertools import chain
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from cmtool.backbones.mlp import mlp
from cmtool.core.denoiser import Denoiser, Preconditioning
from cmtool.datasets.toy import gaussians
from cmtool.files.sealed import load_state, save_state
from cmtool.objectives.consistency_2023 import cd, ct
from cmtool.objectives.easy_consistency import ect
from cmtool.objectives.edm import edm
from cmtool.options.lr_schedule import learning_rate
from cmtool.testing import small_model
from cmtool.training.batches import BatchConfig, Batches
from cmtool.training.ema import EMA, constant_decay, power_decay
from cmtool.training.loop import LoopConfig, train
from cmtool.training.optimizers import build_optimizer
from cmtool.training.state import State, pack, unpack

SIZE, STEPS = 16, 10
RECIPES = {
    "edm": lambda teacher: edm(),
    "cd": lambda teacher: cd(teacher, decay=0.9),
    "cd without a target": lambda teacher: cd(teacher, decay=0.0, solver="euler"),
    "ct": lambda teacher: ct(s0=2, s1=20),  # its grid grows on the way
    "ect": lambda teacher: ect(stages=4),
}


def fresh(recipe: str, name: str = "adam", dropout: float = 0.3, seed: int = 0) -> State:
    """What a command assembles: the teacher from its file, all else from new."""
    torch.manual_seed(1)
    teacher = small_model((2,), 8).eval().requires_grad_(False)
    torch.manual_seed(seed)
    net = mlp((2,), 8, hidden_dim=16, depth=1, dropout=dropout)
    objective = RECIPES[recipe](teacher)
    model = Denoiser(net, Preconditioning(sigma_min=objective.requirements.sigma_min))
    objective.begin(model)
    return State(model, objective, build_optimizer({"name": name}, model.parameters(), 1.0), EMA(model, 100))


def walk(state: State, until: int, **options) -> list[float]:
    """Train to the step ``until`` of a run of STEPS; the losses, as the log has them."""
    total = SIZE * STEPS
    batches = Batches(gaussians(count=100), BatchConfig(SIZE, seed=4)).since(state.images)
    config = LoopConfig(seed=4, clip=1.0, **options)
    steps = train(state, batches, total, lambda n: learning_rate(0.01, n, total, 40, "cosine"), config)
    losses = []
    for report in steps:
        losses.append(report.loss.item())
        if report.images >= SIZE * until:
            break
    steps.close(), batches.close()
    return losses


def everything(state: State) -> dict[str, Tensor]:
    """All that training changes, by a way of its own."""
    modules = {"model": state.model, "average": state.average.model, "objective": state.objective}
    named = chain.from_iterable(
        ((f"{k}.{name}", value) for name, value in chain(module.named_parameters(), module.named_buffers()))
        for k, module in modules.items()
    )
    moments = {
        f"moments.{name}.{key}": torch.as_tensor(value)
        for name, parameter in state.model.named_parameters()
        for key, value in state.optimizer.state[parameter].items()
    }
    counts = {"images": torch.tensor(state.images), "skipped": torch.tensor(state.skipped)}
    return {k: v.detach().clone() for k, v in (*named, *moments.items(), *counts.items())}


def assert_same(a: State, b: State) -> None:
    ours, theirs = everything(a), everything(b)
    assert ours.keys() == theirs.keys()
    different = [key for key in ours if not torch.equal(ours[key], theirs[key])]
    assert not different


def taken_up(state: State, place: Path, recipe: str, name: str, dropout: float = 0.3) -> State:
    """The state by way of the file, in a process that began with other weights."""
    save_state(place, *pack(state))
    again = fresh(recipe, name, dropout, seed=77)
    unpack(again, *load_state(place))
    return again


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("name", ["adam", "adamw", "radam"])
def test_ten_steps_are_five_and_five(recipe, name, tmp_path):
    whole, part = fresh(recipe, name), fresh(recipe, name)
    expected = walk(whole, STEPS)
    found = walk(part, 5)
    part = taken_up(part, tmp_path, recipe, name)
    assert part.images == 5 * SIZE
    found += walk(part, STEPS)
    assert found == expected
    assert_same(part, whole)


@pytest.mark.parametrize("recipe", ["cd", "ct"])
def test_a_run_may_be_cut_after_every_step(recipe, tmp_path):
    whole, part = fresh(recipe), fresh(recipe)
    expected, found = walk(whole, STEPS), []
    for until in range(1, STEPS + 1):
        found += walk(part, until)
        part = taken_up(part, tmp_path, recipe, "adam")
    assert found == expected
    assert_same(part, whole)


def test_every_average_is_taken_up(tmp_path):
    """Names of which one begins with another are told apart."""
    rules = {"constant-0": constant_decay(0.0), "constant-0.9": constant_decay(0.9), "power-0.05": power_decay(0.05)}

    def made(seed: int = 0) -> State:
        state = fresh("ect", seed=seed)
        state.others = {name: EMA(state.model, rule=rule) for name, rule in rules.items()}
        return state

    whole, part, again = made(), made(), made(seed=77)
    walk(whole, STEPS), walk(part, 5)
    save_state(tmp_path, *pack(part))
    unpack(again, *load_state(tmp_path))
    walk(again, STEPS)
    assert_same(again, whole)
    for name in rules:
        ours, theirs = (list(state.others[name].model.parameters()) for state in (again, whole))
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True)), name
    assert torch.equal(next(whole.others["constant-0"].model.parameters()), next(whole.model.parameters()))
    assert not torch.equal(*(next(whole.others[name].model.parameters()) for name in ("power-0.05", "constant-0.9")))


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_a_run_may_go_on_with_other_threads(dropout, tmp_path):
    whole, part = fresh("cd", dropout=dropout), fresh("cd", dropout=dropout)
    expected = walk(whole, STEPS, micro=4)
    found = walk(part, 5, micro=4, threads=3)
    part = taken_up(part, tmp_path, "cd", "adam", dropout)
    found += walk(part, STEPS, micro=4, threads=2)
    assert found == expected
    assert_same(part, whole)


def test_the_cut_is_seen_where_something_is_left_out():
    """Each part of a snapshot is needed: without it the second half of the run goes elsewhere."""
    whole = fresh("cd")
    walk(whole, STEPS)
    for missing in ("optimiser.", "objective.", "average.", "model."):
        part, other = fresh("cd"), fresh("cd", seed=77)
        walk(part, 5)
        tensors, scalars = pack(part)
        kept = {k: v for k, v in tensors.items() if not k.startswith(missing)}
        unpack(other, kept | {k: v for k, v in pack(other)[0].items() if k.startswith(missing)}, scalars)
        walk(other, STEPS)
        with pytest.raises(AssertionError):
            assert_same(other, whole)


def test_a_snapshot_before_the_first_step_is_the_start(tmp_path):
    whole = fresh("cd")
    part = taken_up(fresh("cd"), tmp_path, "cd", "adam")
    assert_same(part, whole)
    assert walk(part, STEPS) == walk(whole, STEPS)
    assert_same(part, whole)


def test_steps_that_were_skipped_are_remembered(tmp_path):
    state = fresh("edm")
    state.skipped, state.streak, state.draws = 3, 2, 1
    again = taken_up(state, tmp_path, "edm", "adam")
    assert (again.skipped, again.streak, again.draws) == (3, 2, 1)


def test_the_teacher_is_not_kept():
    tensors, scalars = pack(fresh("cd"))
    assert not [k for k in tensors if "teacher" in k]
    assert {k.partition(".")[0] for k in tensors} == {"model", "average", "objective"}
    assert scalars == {"images": 0, "skipped": 0, "streak": 0, "draws": 0}


def test_a_network_with_statistics_of_its_own_keeps_them():
    """Buffers are part of a network, and of its average."""

    def made(seed: int) -> State:
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
        steps = build_optimizer({"name": "adam"}, model.parameters(), 0.1)
        return State(model, edm(), steps, EMA(model, 100))

    state, again = made(0), made(1)
    state.model(torch.randn(8, 2)).sum().backward()
    state.optimizer.step()
    state.average.update(state.model, 8, 8)
    unpack(again, *pack(state))
    assert_same(again, state)
    assert again.model[1].num_batches_tracked == 1
