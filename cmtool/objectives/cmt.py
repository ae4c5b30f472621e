"""Consistency mid-training (arXiv 2509.24526, section 3)."""

import torch
from torch import Tensor, nn

from cmtool.core.denoiser import Denoise, Denoiser, broadcast_like
from cmtool.core.sampling.loops import ode_field
from cmtool.core.sigma_schedules import log_uniform
from cmtool.core.solvers import Solver, integrate
from cmtool.errors import UsageError
from cmtool.objectives.distances import Metric, metric_called
from cmtool.objectives.objective import Batch, Objective
from cmtool.options import registry

__all__ = ["Midtraining", "cmt"]


class Midtraining(Objective):
    """``d(f(x_t, t), x_end)``, x_t one of the points of a teacher's walk from ``x + sigma_max z`` and x_end its end.

    Images that have the same noise share one walk; without a target there is nothing to diverge.
    """

    kind = "consistency"

    def __init__(self, teacher: nn.Module, grid: Tensor, solver: Solver, metric: Metric):
        super().__init__()
        self.teacher, self.grid, self.solver, self.metric = teacher, grid, solver, metric
        self.sigma_min, self.sharing = float(grid[-1]), len(grid) - 1

    def loss(self, model: Denoise, batch: Batch, progress: float) -> Tensor:
        k = (batch.u * (len(self.grid) - 1)).long()
        x_t, x_end = self.walk(batch, k)
        return self.metric(model(x_t, self.grid.to(batch.u)[k], batch.labels), x_end)

    @torch.no_grad()
    def walk(self, batch: Batch, k: Tensor) -> tuple[Tensor, Tensor]:
        """The k-th point and the end of the walk of each image."""
        first, each = distinct(batch.z)
        x = batch.x[first] + broadcast_like(self.grid[0], batch.x) * batch.z[first]
        field = ode_field(self.teacher, None if batch.labels is None else batch.labels[first])
        points = torch.stack([x, *integrate(field, x, self.grid.to(batch.u), self.solver)])
        return points[k, each], points[-1, each]


def distinct(z: Tensor) -> tuple[Tensor, Tensor]:
    """The first of every run of equal rows, [W], and which run each row belongs to, [B]."""
    changes = (z[1:] != z[:-1]).flatten(1).any(1)
    each = torch.cat([changes.new_zeros(1), changes]).cumsum(0)
    return torch.searchsorted(each, torch.arange(int(each[-1]) + 1, device=z.device)), each


def cmt(
    teacher: Denoiser,
    *,
    steps: int = 16,
    solver: str = "dpmpp-2m",
    metric: str = "l2",
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
) -> Midtraining:
    """Walks of ``steps`` steps even in ln sigma, by DPM-Solver++ 2M; a short tuning is meant to follow.

    So many images in a row of the run are one picture with one noise: a walk serves all of them, each at a point of its
    own, and costs one evaluation of the teacher an image. The authors' metric is LPIPS.
    """
    if steps < 1:
        raise UsageError(f"'cmt' needs 1 step or more, not {steps}", "16 is usual")
    return Midtraining(
        teacher, log_uniform(steps + 1, sigma_min, sigma_max), registry.build("solvers", solver), metric_called(metric)
    )
