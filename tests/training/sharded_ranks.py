"""Ranks with sharded weights, as processes on gloo: ``python sharded_ranks.py SIZE WORK FOLDER``.

torch is imported once, before the ranks are forked. Each work writes what it found to FOLDER.
"""

import faulthandler
import json
import os
import sys
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor

from cmtool.backbones.edm2 import edm2 as edm2_network
from cmtool.backbones.unet import unet
from cmtool.core.denoiser import Denoiser, Preconditioning
from cmtool.core.guidance import Guided, Unlabelled
from cmtool.core.sharded_tensors import full_tensor
from cmtool.datasets.digits import digits
from cmtool.errors import CmtoolError
from cmtool.files.sharded_states import fill_tensors, open_sharded, save_sharded
from cmtool.objectives.objective import Objective
from cmtool.options import registry
from cmtool.options.ema_spec import parse_ema_specs
from cmtool.training.batches import BatchConfig, Batches
from cmtool.training.loop import LoopConfig, Report, train
from cmtool.training.ranks import ALONE, GroupRanks
from cmtool.training.setup import build_state
from cmtool.training.sharding import gather_model, shard_state
from cmtool.training.state import State, make_room, pack, unpack

SHAPE, SIZE = (1, 8, 8), 8
STEPS = int(os.environ.get("STEPS", "5"))
STATE = "00000040"
METHODS = {
    "train_score": ("edm", "ssm", "edm2"),
    "distill": ("cd", "pd", "mcd", "ctm", "ccd", "scd", "guided"),
    "train_ct": ("ct", "ect", "stable", "tcm", "meanflow", "sct"),
}
OPTIONS = {"mcd": {"segments": 4, "steps": 8}, "ccd": {"stop": False}, "ctm": {"steps": 4}, "scd": {"adaptive": True}}


def network(**options):
    return unet(SHAPE, 0, model_channels=8, channel_mult=(1,), num_blocks=1, attn_resolutions=(), **options)


def moved(module, by: float):
    """The same with other weights: those of a new network are partly 0, and would hide what goes wrong."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(by * torch.randn_like(parameter))
    return module


def objective_called(group: str, name: str) -> Objective:
    if group != "distill":
        return registry.build(group, {"name": name, **OPTIONS.get(name, {})})
    torch.manual_seed(3)
    teacher = Denoiser(moved(network(), 0.02), Preconditioning()).requires_grad_(False).eval()
    if name == "guided":
        weak = Unlabelled(Denoiser(moved(network(), 0.02), Preconditioning()).requires_grad_(False).eval())
        return registry.build("distill", {"name": "cd"}, Guided(teacher, weak, 2.0, (0.1, 0.3)))
    return registry.build("distill", {"name": name, **OPTIONS.get(name, {})}, teacher)


def fresh(group: str = "train_ct", name: str = "ct", optimizer: str = "adam", net=None) -> State:
    objective = objective_called(group, name)
    needs = objective.requirements
    torch.manual_seed(0)
    net = net or network(dropout=0.2, target_dim=8 if needs.target_sigma else 0)
    preconditioning = needs.preconditioning or Preconditioning(sigma_min=needs.sigma_min, jumps=needs.target_sigma)
    model = Denoiser(moved(net, 0.05), preconditioning)
    return build_state(model, objective, {"name": optimizer}, 1e-3, parse_ema_specs("200,power:0.1"))


class Direct:
    def __init__(self, state: State, size: int = SIZE):
        self.batches = Batches(digits(), BatchConfig(size, seed=4, conditional=False), state.objective.requirements)
        self.size = size

    def get(self, n: int, rows: range | None = None):
        return self.batches.at(n, rows)


def walk(state: State, steps: int, parallel: str = "fsdp", size: int = SIZE, **options) -> list[Report]:
    ranks = ALONE if parallel == "exact" else GroupRanks()
    config = LoopConfig(**{"seed": 4, "clip": 1.0, "micro": 2, "ranks": ranks, "parallel": parallel, **options})
    return list(train(state, Direct(state, size), state.images + size * steps, lambda n: 1e-3, config))


def values(state: State) -> dict[str, Tensor]:
    """Everything that a state holds, whole."""
    return {name: full_tensor(value).clone() for name, value in pack(state)[0].items()}


def same(one: State, other: State) -> bool:
    """Bit for bit."""
    mine, theirs = values(one), values(other)
    return mine.keys() == theirs.keys() and all(torch.equal(value, theirs[name]) for name, value in mine.items())


def apart(one: State, other: State) -> float:
    """The largest difference of a weight."""
    pairs = zip(one.model.parameters(), other.model.parameters(), strict=True)
    return max(float((full_tensor(a.detach()) - full_tensor(b.detach())).abs().max()) for a, b in pairs)


def compare(one: tuple[State, list[Report]], other: tuple[State, list[Report]]) -> dict[str, float]:
    losses, norms = (
        max(abs(float(vars(a)[k] - vars(b)[k])) / abs(float(vars(b)[k])) for a, b in zip(one[1], other[1], strict=True))
        for k in ("loss", "gradient")
    )
    gap = abs(float(one[0].average.gap(one[0].model) / other[0].average.gap(other[0].model)) - 1)
    return {"loss": losses, "gradient": norms, "weights": apart(one[0], other[0]), "gap": gap}


CPU = torch.device("cpu")


def sharded(state: State, dtype: torch.dtype | None = None) -> State:
    shard_state(state, CPU, dtype)
    return state


def both_ways(make: Callable[[], State], steps: int, **options) -> dict[str, float]:
    """How far a sharded run is from one process."""
    alone, shards = make(), sharded(make())
    return compare((shards, walk(shards, steps, **options)), (alone, walk(alone, steps, "exact", **options)))


def methods(folder: Path) -> dict:
    found = {}
    for group, names in METHODS.items():
        for name in names:
            found[name] = both_ways(lambda group=group, name=name: fresh(group, name), 2)
    return found


def training(folder: Path) -> dict:
    """STEPS steps beside exact mode and DDP, twice; a state of them, and what comes after it."""

    def make() -> State:
        return fresh("train_ct", "ct")

    first, again, ddp, alone = sharded(make()), sharded(make()), make(), make()
    runs = {"fsdp": (first, walk(first, STEPS)), "again": (again, walk(again, STEPS))}
    runs |= {"ddp": (ddp, walk(ddp, STEPS, "ddp")), "exact": (alone, walk(alone, STEPS, "exact"))}
    found: dict = {name: compare(runs["fsdp"], runs[name]) for name in ("ddp", "exact")}
    found["again"] = same(first, again)
    kept = sum(p.to_local().numel() for p in first.model.parameters()) / sum(
        p.numel() for p in first.model.parameters()
    )
    found["share"] = kept
    save_sharded(folder / STATE, *packed(first))
    _keep(folder / "saved", values(first))
    plain = gather_model(first.average.model, first.sharding, dist.get_rank() == 0)
    if plain is not None:
        _keep(folder / "average", dict(plain.state_dict()))
    walk(first, 2)
    _keep(folder / "after", values(first))
    resumed = restored(sharded(make()), folder / STATE)
    walk(resumed, 2)
    found["resumed"] = same(first, resumed)
    return found


def packed(state: State) -> tuple[dict[str, Tensor], dict]:
    tensors, scalars = pack(state)
    return tensors, scalars | {"note": "kept as it is"}


def restored(state: State, folder: Path) -> State:
    stored = open_sharded(folder)
    room = make_room(state, stored.tensors)
    fill_tensors(stored, room)
    unpack(state, room, stored.scalars)
    return state


def loading(folder: Path) -> dict:
    """What ``training`` saved, here."""
    state = restored(sharded(fresh("train_ct", "ct")), folder / STATE)
    size = dist.get_world_size()
    _keep(folder / f"loaded-{size}", values(state))
    save_sharded(folder / f"again-{size}", *packed(state))
    whole = fresh("train_ct", "ct")
    unpack(whole, values(state), pack(state)[1])
    other = sharded(fresh("train_ct", "ct"))
    unpack(other, *pack(whole))  # of whole tensors, each rank takes its part
    return {"same": same(state, other), "images": state.images}


def networks(folder: Path) -> dict:
    """Weights without dimension, weights on a sphere, other optimizers, lower precision."""

    def magnitude() -> State:
        torch.manual_seed(1)
        net = edm2_network(SHAPE, 0, model_channels=32, channel_mult=(1, 2), num_blocks=1, attn_resolutions=(4,))
        return fresh("train_score", "edm2", net=net)

    found = {"edm2": both_ways(magnitude, 3)}
    for name in ("adamw", "radam"):
        found[name] = both_ways(lambda name=name: fresh("train_ct", "ect", name), 3)
    save_sharded(folder / "edm2", *pack(trained := sharded(magnitude())))
    walk(trained, 2)
    save_sharded(folder / "edm2", *pack(trained))  # in the place of the one before
    _keep(folder / "edm2-values", values(trained))
    half = {"autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16)}
    full, low, alone = sharded(fresh()), sharded(fresh(), torch.bfloat16), fresh()
    reports = [walk(full, 3), walk(low, 3, **half), walk(alone, 3, "exact", **half)]
    found["bf16"] = compare((low, reports[1]), (alone, reports[2])) | {
        "fp32": compare((low, reports[1]), (full, reports[0]))["loss"]
    }
    return found


class Doubtful(Objective):
    """A plugin that takes a gradient inside its loss, and does not say so."""

    def loss(self, model, batch, progress):
        x = batch.x.clone().requires_grad_()
        sigma = torch.ones(len(x))
        (slope,) = torch.autograd.grad(model(x, sigma, None).square().sum(), x, create_graph=True)
        return slope.square().flatten(1).sum(1)


def refusals(folder: Path) -> dict:
    def doubtful() -> State:
        torch.manual_seed(0)
        model = Denoiser(moved(network(), 0.05), Preconditioning())
        return build_state(model, Doubtful(), {"name": "adam"}, 1e-3, parse_ema_specs("200"))

    found = {}
    for name, make, size in (("method", doubtful, 8), ("batch", fresh, 7)):
        state = sharded(make())
        try:
            walk(state, 1, size=size)
        except CmtoolError as error:
            found[name] = [type(error).__name__, error.code, str(error), str(error.hint), state.images]
    state = sharded(fresh())
    (folder / "a file").write_text("")
    try:
        save_sharded(folder / "a file" / "00000001", *pack(state))
    except CmtoolError as error:
        found["write"] = [type(error).__name__, error.code, str(error)]
    return found


def _keep(path: Path, tensors: dict[str, Tensor]) -> None:
    if dist.get_rank() == 0:
        save_file({name: value.contiguous() for name, value in tensors.items()}, path)


def rank_of(rank: int, size: int, work: str, folder: Path) -> int:
    """One rank; the exit code."""
    faulthandler.dump_traceback_later(600, exit=True)
    try:
        store = dist.FileStore(  # pyright: ignore[reportPrivateImportUsage]
            str(folder / f"store-{work}-{size}"), size
        )
        dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=timedelta(minutes=2))
        found = WORKS[work](folder)
        (folder / f"{work}-{rank}-of-{size}.json").write_text(json.dumps(found))
        dist.barrier()
        dist.destroy_process_group()
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


WORKS = {each.__name__: each for each in (methods, training, loading, networks, refusals)}

if __name__ == "__main__":
    size, work, folder = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    torch.set_num_threads(1)
    children = []
    for rank in range(size):
        child = os.fork()
        if child == 0:
            os._exit(rank_of(rank, size, work, folder))
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    sys.exit(max(codes, key=abs))
