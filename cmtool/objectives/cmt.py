"""Consistency mid-training (arXiv 2509.24526, section 3)."""

from typing import Annotated

import torch
from torch import Tensor, nn

from cmtool.core.denoiser import Denoise, Denoiser, broadcast_like, ode_field
from cmtool.core.sigma_schedules import log_uniform
from cmtool.core.solvers import Solver, integrate
from cmtool.objectives.distances import Metric, MetricOption, metric_called
from cmtool.objectives.objective import (
    Batch,
    Objective,
    Requirements,
    SigmaMaxOption,
    SigmaMinOption,
    SolverOption,
)
from cmtool.options import registry
from cmtool.options.plugin_option import Option
from cmtool.options.types import at_least

__all__ = ["Midtraining", "cmt"]


class Midtraining(Objective):
    """``d(f(x_t, t), x_end)``, x_t a point of the teacher's trajectory from ``x + sigma_max z`` and x_end its end.

    Images that have the same noise share one trajectory; without a target network there is nothing to diverge.
    """

    def __init__(self, teacher: nn.Module, grid: Tensor, solver: Solver, metric: Metric):
        super().__init__(Requirements("consistency", float(grid[-1]), points_per_trajectory=len(grid) - 1))
        self.teacher, self.grid, self.solver, self.metric = teacher, grid, solver, metric

    def loss(self, model: Denoise, batch: Batch, progress: float) -> Tensor:
        k = (batch.u * (len(self.grid) - 1)).long()
        x_t, x_end = self.trajectory(batch, k)
        return self.metric(model(x_t, self.grid.to(batch.u)[k], batch.labels), x_end)

    @torch.no_grad()
    def trajectory(self, batch: Batch, k: Tensor) -> tuple[Tensor, Tensor]:
        """The k-th point and the end of the trajectory of each image."""
        first, each = distinct(batch.z)
        start = batch.select(first)
        x = start.x + broadcast_like(self.grid[0], start.x) * start.z
        field = ode_field(start.condition(self.teacher), start.labels)
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
    steps: Annotated[int, Option("solver steps of a trajectory, even in ln sigma", at_least(1))] = 16,
    solver: SolverOption = "dpmpp-2m",
    metric: MetricOption = "l2",
    sigma_min: SigmaMinOption = 0.002,
    sigma_max: SigmaMaxOption = 80.0,
) -> Midtraining:
    """Consistency mid-training: every point of a trajectory of the teacher is mapped to its end.

    Formula: ``loss = d(f(x_t, t), x_end)``, x_t on the teacher's trajectory from ``x + sigma_max z`` to x_end
    Paper: Consistency mid-training, arXiv 2509.24526, section 3.
    Use: between a score model and a short run of 'ect', as the authors do.

    ``steps`` images in a row of the run are one image with one noise: a trajectory serves all of them, each at a point
    of its own, and costs one evaluation of the teacher an image. The authors' metric is LPIPS.
    """
    return Midtraining(
        teacher, log_uniform(steps + 1, sigma_min, sigma_max), registry.build("solvers", solver), metric_called(metric)
    )
