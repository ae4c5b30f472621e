"""Layers that keep their weights on a sphere: put back before each step, the trained ones and no others."""

import pytest
import torch
from torch import Tensor, nn

from cmtool.backbones.edm2 import edm2 as network
from cmtool.backbones.magnitude import Conv
from cmtool.core.denoiser import Denoiser, Preconditioning
from cmtool.objectives.edm import edm2
from cmtool.objectives.objective import Batch, Objective
from cmtool.training.ema import EMA
from cmtool.training.loop import LoopConfig, projected_layers, train
from cmtool.training.optimizers import build_optimizer
from cmtool.training.state import State, pack, unpack


def batches(images: int = 0):
    while True:
        generator = torch.Generator().manual_seed(images)
        x, z = torch.randn(2, 6, 1, 8, 8, generator=generator)
        yield Batch(x.clamp(-1, 1), z, torch.rand(6, generator=generator, dtype=torch.float64), torch.arange(6) % 2)
        images += 6


def fresh() -> State:
    torch.manual_seed(0)
    model = Denoiser(network((1, 8, 8), 2, model_channels=8, num_head_channels=8, num_blocks=1), Preconditioning())
    objective = edm2(head="fourier")
    steps = build_optimizer({}, [*model.parameters(), *objective.trained()], 0.1)
    return State(model, objective, steps, EMA(model, 100))


def run(state: State, total: int, **options) -> State:
    for _ in train(state, batches(state.images), total, lambda images: 0.02, LoopConfig(**options)):
        pass
    return state


def filters(module: nn.Module) -> list[nn.Parameter]:
    return [p for name, p in module.named_parameters() if name.endswith("weight")]


def squares(module: nn.Module) -> Tensor:
    """The mean square of each filter."""
    return torch.cat([p.detach().flatten(1).square().mean(1) for p in filters(module)])


def test_steps_do_not_lengthen_filters():
    """Adam's steps of 0.02 a weight add at most 1 + 0.02^2 to a mean square, and the next step starts from 1 again."""
    state = fresh()
    with torch.no_grad():
        for parameter in [*filters(state.model), *filters(state.objective)]:
            parameter *= 5
    run(state, 120)
    for module in (state.model, state.objective):
        assert (squares(module) - 1).abs().max() < 0.02
    assert (squares(state.average.model) < 1.02).all()


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_change_no_bit(threads):
    alone, together = run(fresh(), 18, micro=2), run(fresh(), 18, micro=2, threads=threads)
    assert all(map(torch.equal, alone.model.state_dict().values(), together.model.state_dict().values()))
    assert all(map(torch.equal, alone.objective.state_dict().values(), together.objective.state_dict().values()))


def test_a_run_that_is_taken_up_again_ends_the_same():
    whole, first, second = run(fresh(), 36), run(fresh(), 18), fresh()
    unpack(second, *pack(first))
    run(second, 36)
    for a, b in ((whole.model, second.model), (whole.average.model, second.average.model)):
        assert all(map(torch.equal, a.state_dict().values(), b.state_dict().values()))
    assert all(map(torch.equal, whole.objective.state_dict().values(), second.objective.state_dict().values()))


def test_only_what_is_trained_is_touched():
    """A frozen part of the model, and a teacher that the objective carries, keep the filters that they have."""

    class Taught(Objective):
        def __init__(self):
            super().__init__()
            self.teacher = Conv(3, 4).requires_grad_(False)

    free, frozen = Conv(3, 4), Conv(3, 4).requires_grad_(False)
    model, objective = nn.Sequential(free, frozen, nn.Linear(4, 4)), Taught()
    trained = [p for p in model.parameters() if p.requires_grad]
    state = State(model, objective, torch.optim.SGD(trained), EMA(model, 100))
    assert projected_layers(state, trained) == [free]
