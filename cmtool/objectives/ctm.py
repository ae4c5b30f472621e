"""Consistency trajectory models, without their adversarial term (Kim et al. 2023, arXiv 2310.02279, algorithm 1)."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from cmtool.core.denoiser import Denoiser, broadcast_like
from cmtool.core.flow_map import TARGET_DIM, FlowMap, encode_target, flow_map_step
from cmtool.core.sampling.loops import ode_field
from cmtool.core.sigma_schedules import karras
from cmtool.core.solvers import Solver
from cmtool.errors import UsageError
from cmtool.objectives.consistency import same_dropout
from cmtool.objectives.denoising import Levels, Weight, weight_called
from cmtool.objectives.distances import Metric, metric_called
from cmtool.objectives.noise_levels import log_normal, split_uniform
from cmtool.objectives.objective import Batch, Objective, ema_update
from cmtool.options import registry

__all__ = ["Trajectory", "ctm"]

Choice = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]  # uniforms -> (i, h, j), [B] int64


class Trajectory(Objective):
    """``d(G^-(G(x_t, t, s), s, 0), G^-(G^-(x_u, u, s), s, 0)) + balance w(v) |g(x_v, v, v) - x_0|^2``.

    ``t > u >= s`` are levels i, i + h and j of a grid, x_u is where h steps of the teacher's ODE lead from x_t, and G^-
    is a copy of the student that lags behind. Both jumps to s are compared as images, at level 0. The second term is
    denoising at a level v of its own: the limit s -> t, which the jumps alone leave free. The lowest level of the grid
    is 0 for s, so that jumps to the image are among those that are learnt.
    """

    kind, hints = "consistency", TARGET_DIM

    def __init__(
        self,
        teacher: nn.Module,
        solver: Solver,
        grid: Tensor,
        choice: Choice,
        metric: Metric,
        decay: float,
        levels: Levels,
        weight: Weight,
        balance: float,
    ):
        super().__init__()
        self.teacher, self.solver, self.choice, self.metric, self.decay = teacher, solver, choice, metric, decay
        self.levels, self.weight, self.balance = levels, weight, balance
        self.grid, self.ends = grid, torch.cat([grid[:-1], grid.new_zeros(1)])
        self.target: nn.Module | None = None

    def begin(self, model: nn.Module) -> None:
        self.target = copy.deepcopy(model).requires_grad_(False)

    def loss(self, model: FlowMap, batch: Batch, progress: float) -> Tensor:
        *three, level = split_uniform(batch.u, 4)
        return self._agreement(model, batch, *three) + self.balance * self._denoising(model, batch, self.levels(level))

    @property
    def lagging(self) -> FlowMap:
        if self.target is None:
            raise RuntimeError("begin(model) comes before loss(model, ...)")
        return self.target

    def _agreement(self, model: FlowMap, batch: Batch, *u: Tensor) -> Tensor:
        i, h, j = self.choice(*u)
        grid, s = self.grid.to(batch.u), self.ends.to(batch.u)[j]
        x_t = batch.x + broadcast_like(grid[i], batch.x) * batch.z
        x_u = self._walked(x_t, batch.labels, i, h)
        with same_dropout(x_t.device) as again:
            here = self._image(flow_map_step(model, x_t, grid[i], s, batch.labels), s, batch.labels)
            again()
            with torch.no_grad():
                there = self._image(flow_map_step(self.lagging, x_u, grid[i + h], s, batch.labels), s, batch.labels)
        return self.metric(here, there)

    def _image(self, x: Tensor, s: Tensor, labels: Tensor | None) -> Tensor:
        """The target's jump from s to 0; at 0 it is x itself, and ln s need not exist there."""
        image = flow_map_step(self.lagging, x, torch.where(s > 0, s, torch.ones_like(s)), torch.zeros_like(s), labels)
        return torch.where(broadcast_like(s > 0, x).bool(), image, x)

    def _denoising(self, model: FlowMap, batch: Batch, v: Tensor) -> Tensor:
        error = model(batch.x + broadcast_like(v, batch.x) * batch.z, v, batch.labels, encode_target(v, v)) - batch.x
        return self.weight(v).to(error) * error.square().flatten(1).mean(1)

    @torch.no_grad()
    def _walked(self, x: Tensor, labels: Tensor | None, i: Tensor, h: Tensor) -> Tensor:
        """``h`` steps down the grid from its i-th level; images whose walk is over rest."""
        grid = self.grid.to(device=x.device)
        for k in range(int(h.max())):
            rows = (h > k).nonzero()[:, 0]
            field = ode_field(self.teacher, None if labels is None else labels[rows])
            at = i[rows] + k
            x = x.index_copy(0, rows, self.solver(field, x[rows], grid[at], grid[at + 1]))
        return x

    def update(self, model: nn.Module, progress: float) -> None:
        if self.target is not None:
            ema_update(self.target, model, self.decay)


def steps_and_ends(n: int, most: int) -> Choice:
    """``i < n - 1`` uniform, ``h`` uniform from 1 to ``most`` or all that are left, ``j`` uniform from i + h on."""

    def choice(one: Tensor, two: Tensor, three: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        i = (one * (n - 1)).long()
        h = 1 + (two * (n - 1 - i).clamp(max=most)).long()
        return i, h, i + h + (three * (n - i - h)).long()

    return choice


def ctm(
    teacher: Denoiser,
    *,
    steps: int = 18,
    substeps: int = 17,
    solver: str = "heun",
    metric: str = "l2",
    decay: float = 0.95,
    balance: float = 0.05,
    P_mean: float = -1.2,
    P_std: float = 1.2,
    weight: str = "edm",
    rho: float = 7.0,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    sigma_data: float = 0.5,
) -> Trajectory:
    """A Karras grid of ``steps`` levels; up to ``substeps`` of them are walked by the teacher's ``solver`` at a time.

    ``decay`` is mu of the lagging copy. ``balance`` is how much denoising counts, at levels with
    ``ln sigma ~ N(mean, std^2)`` and with the weight called ``weight``. The paper sets it anew at each step so that
    both gradients are as long in the last layer, which would tie the loss of an image to those beside it.
    """
    if steps < 2 or substeps < 1:
        raise UsageError(f"'ctm' needs 2 levels and 1 step of the solver or more, not {steps} and {substeps}")
    return Trajectory(
        teacher,
        registry.build("solvers", solver),
        karras(steps, sigma_min, sigma_max, rho),
        steps_and_ends(steps, substeps),
        metric_called(metric),
        decay,
        levels=lambda u: log_normal(u, P_mean, P_std),
        weight=weight_called(weight, sigma_data),
        balance=balance,
    )
