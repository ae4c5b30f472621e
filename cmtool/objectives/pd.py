"""Progressive distillation (Salimans and Ho 2022, arXiv 2202.00512, algorithm 2) on a Karras grid."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from cmtool.core.denoiser import Denoiser
from cmtool.core.grids import karras
from cmtool.core.solvers import euler
from cmtool.errors import UsageError
from cmtool.objectives.consistency import along_teacher, pair_weight
from cmtool.objectives.levels import adjacent, halving_steps
from cmtool.objectives.metrics import metric as metric_called
from cmtool.objectives.objective import Batch
from cmtool.objectives.segments import Segments

__all__ = ["Progressive", "pd"]


class Progressive(Segments):
    """One step of the student is two of its teacher's, which is the student as it was when the steps last halved.

    That ``guide`` and the number of steps change with training, so they belong to its snapshot.
    """

    teacher: nn.Module  # of the first stage
    guide: nn.Module
    steps: Tensor

    def __init__(self, first: int, last: int, grid: tuple[float, float, float], **choices: Any):
        super().__init__(
            lambda: karras(int(self.steps) + 1, *grid),
            pair=lambda u, progress: adjacent(u, int(self.steps) + 1, *grid),
            back=self._two_steps,
            **choices,
        )
        self.first, self.last, self.rho = first, last, grid[2]
        self.register_buffer("steps", torch.tensor(first))

    def _two_steps(self, x_t: Tensor, batch: Batch, t: Tensor, r: Tensor) -> Tensor:
        teacher = self.teacher if int(self.steps) == self.first else self.guide
        return along_teacher(teacher, euler(), 2, self.rho)(x_t, batch, t, r)

    def begin(self, model: nn.Module) -> None:
        super().begin(model)
        self.guide = copy.deepcopy(model).eval().requires_grad_(False)

    def update(self, model: nn.Module, progress: float) -> None:
        """A stage begins with the step after the one that enters it, wherever the run is cut."""
        steps = halving_steps(progress, self.first, self.last)
        if steps < int(self.steps):
            self.guide.load_state_dict(model.state_dict())
            self.steps.fill_(steps)


def pd(
    teacher: Denoiser,
    *,
    first: int = 16,
    last: int = 1,
    metric: str = "l2",
    weight: str = "truncated-snr",
    rho: float = 7.0,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    sigma_data: float = 0.5,
) -> Progressive:
    """A student that takes ``first`` steps, then half as many, down to ``last``: stages of equal length.

    Those of 2 and of 1 step last twice as long. At level t of the grid with N steps the network is compared with the
    x_0 that a single step would have to know to end where two of the teacher's do (appendix G, in sigma); the weight is
    max(1/t^2, 1). The middle of a step lies in the middle of the Karras ramp, as OpenAI ran it in 2023.
    """
    ratio = first // last if last > 0 else 0
    if ratio & (ratio - 1) or ratio < 1 or ratio * last != first:
        raise UsageError(f"'pd' halves its steps, and {first} cannot be halved to {last}", "16 and 1 is usual")
    grid = sigma_min, sigma_max, rho
    return Progressive(
        first, last, grid, metric=metric_called(metric), weight=pair_weight(weight, sigma_data), teacher=teacher
    )
