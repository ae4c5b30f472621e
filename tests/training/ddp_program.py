"""A program for several processes: DDP on a network of which not every part is used, and an error on one rank."""

import json
import os

import torch
from torch import Tensor, nn

from cmtool.core.denoiser import Denoise
from cmtool.errors import LostRank
from cmtool.objectives.objective import Batch, Objective
from cmtool.pipelines.distributed import find_world, ranks_of
from cmtool.training.ema import EMA
from cmtool.training.loop import LoopConfig, train
from cmtool.training.ranks import ALONE, Ranks
from cmtool.training.state import State

SIZE, STEPS = 12, 4


class Seldom(nn.Module):
    """``first`` is used by the first images of a batch alone, ``never`` by none."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.always, self.first, self.never = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
        found = self.always(x)
        return found + self.first(x) if labels is not None and (labels == 0).any() else found


class Squares(Objective):
    """``scale mean (D(x, 1) - z)^2``, with a scale that is trained, too; an error at ``progress`` = ``broken``."""

    def __init__(self, broken: float = -1.0):
        super().__init__()
        self.scale, self.broken = nn.Parameter(torch.ones(())), broken

    def trained(self) -> list[nn.Parameter]:
        return [self.scale]

    def loss(self, model: Denoise, batch: Batch, progress: float) -> Tensor:
        if progress == self.broken:
            raise ValueError("a broken loss")
        return self.scale * (model(batch.x, torch.ones(len(batch)), batch.labels) - batch.z).square().mean(1)


class Numbers:
    """The same batch again and again."""

    size = SIZE

    def get(self, n: int, rows: range | None = None) -> Batch:
        generator = torch.Generator().manual_seed(1)
        x, z = (torch.randn(SIZE, 3, generator=generator) for _ in "xz")
        whole = Batch(x, z, torch.rand(SIZE, generator=generator), torch.arange(SIZE) // 2)
        return whole if rows is None else whole.select(slice(rows.start, rows.stop))


def walk(ranks: Ranks, parallel: str, broken: float = -1.0) -> list[list[float]]:
    """The weights after each step."""
    model, objective, found = Seldom(), Squares(broken), []
    steps = torch.optim.SGD([*model.parameters(), *objective.trained()], 0.1)
    config = LoopConfig(micro=2, ranks=ranks, parallel=parallel)
    state = State(model, objective, steps, EMA(model, 100))
    for report in train(state, Numbers(), SIZE * STEPS, lambda n: 0.1, config):
        weights = [*model.parameters(), *objective.trained(), report.loss]
        found.append(torch.cat([w.detach().flatten() for w in weights]).tolist())
    return found


def main() -> None:
    torch.set_num_threads(1)
    world = find_world()
    ranks = ranks_of(world, torch.device("cpu"))
    assert ranks is not ALONE
    found = {"ddp": walk(ranks, "ddp"), "exact": walk(ranks, "exact")}
    for parallel in found.copy():
        for step in (1, 2):
            broken = step / STEPS if world.rank == 1 else -1.0
            try:
                walk(ranks, parallel, broken)
            except (LostRank, ValueError) as error:
                found[f"{parallel} {step}"] = f"{type(error).__name__}: {error}"
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    assert os.environ["WORLD_SIZE"] == "2"
    main()
