"""Consistency trajectory models, without their adversarial term (Kim et al. 2023, arXiv 2310.02279, algorithm 1)."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

from cmtool.core.denoiser import Denoiser, broadcast_like, ode_field
from cmtool.core.flow_map import FlowMap, flow_map_step
from cmtool.core.sigma_schedules import karras
from cmtool.core.solvers import Solver
from cmtool.objectives.distances import Metric, MetricOption, metric_called
from cmtool.objectives.noise_levels import (
    NoiseLevels,
    PMeanOption,
    PStdOption,
    Weight,
    WeightOption,
    log_normal,
    split_uniform,
    weight_called,
)
from cmtool.objectives.objective import (
    Batch,
    DecayOption,
    Objective,
    Requirements,
    RhoOption,
    SigmaDataOption,
    SigmaMaxOption,
    SigmaMinOption,
    SolverOption,
    StepsOption,
    ema_update,
    same_dropout,
)
from cmtool.options import registry
from cmtool.options.plugin_option import Option
from cmtool.options.types import at_least

__all__ = ["DenoisingTerm", "Trajectory", "choose_steps", "ctm"]

Choice = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]  # uniforms -> (i, h, j), [B] int64


@dataclass(frozen=True)
class DenoisingTerm:
    """``balance w(v) |g(x_v, v, v) - x_0|^2`` at a noise level v of its own: the limit s -> t of a flow map."""

    noise_levels: NoiseLevels
    weight: Weight
    balance: float

    def __call__(self, model: FlowMap, batch: Batch, u: Tensor) -> Tensor:
        v = self.noise_levels(u)
        x = batch.x + broadcast_like(v, batch.x) * batch.z
        error = model(x, v, batch.labels, v) - batch.x
        return self.balance * (self.weight(v).to(error) * error.square().flatten(1).mean(1))


class Trajectory(Objective):
    """``d(G^-(G(x_t, t, s), s, 0), G^-(G^-(x_u, u, s), s, 0))``, plus the denoising term.

    ``t > u >= s`` are noise levels i, i + h and j of a grid, x_u is where h steps of the teacher's ODE lead from x_t,
    and G^- is the target network, an EMA of the student. Both steps to s are compared as images, at noise level 0. The
    denoising term is the limit s -> t, which these steps alone leave free. The lowest sigma of the grid is 0 for s, so
    that steps to the image are among those that are learnt.
    """

    def __init__(
        self,
        teacher: nn.Module,
        solver: Solver,
        grid: Tensor,
        choice: Choice,
        metric: Metric,
        decay: float,
        denoising: DenoisingTerm,
    ):
        super().__init__(Requirements("consistency", target_sigma=True))
        self.teacher, self.solver, self.choice, self.metric, self.decay = teacher, solver, choice, metric, decay
        self.denoising = denoising
        self.grid, self.ends = grid, torch.cat([grid[:-1], grid.new_zeros(1)])
        self.target: nn.Module | None = None

    def begin(self, model: nn.Module) -> None:
        self.target = copy.deepcopy(model).requires_grad_(False)

    def uneven(self) -> list[nn.Module]:
        return [self.teacher]

    def loss(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        model: FlowMap,  # a denoiser that takes a further argument
        batch: Batch,
        progress: float,
    ) -> Tensor:
        *three, own = split_uniform(batch.u, 4)
        return self._agreement(model, batch, *three) + self.denoising(model, batch, own)

    def _agreement(self, model: FlowMap, batch: Batch, *u: Tensor) -> Tensor:
        i, h, j = self.choice(*u)
        grid, s = self.grid.to(batch.u), self.ends.to(batch.u)[j]
        x_t = batch.x + broadcast_like(grid[i], batch.x) * batch.z
        x_u, target_network = self._follow_teacher(x_t, batch, i, h), self._target_network(batch)
        with same_dropout(x_t.device) as again:
            online = self._image(target_network, flow_map_step(model, x_t, grid[i], s, batch.labels), s, batch.labels)
            again()
            with torch.no_grad():
                x_s = flow_map_step(target_network, x_u, grid[i + h], s, batch.labels)
                target = self._image(target_network, x_s, s, batch.labels)
        return self.metric(online, target)

    def _target_network(self, batch: Batch) -> FlowMap:
        if self.target is None:
            raise RuntimeError("begin(model) comes before loss(model, ...)")
        return batch.condition(self.target)

    def _image(self, target_network: FlowMap, x: Tensor, s: Tensor, labels: Tensor | None) -> Tensor:
        """The target's step from s to 0; at 0 it is x itself, and ln s need not exist."""
        image = flow_map_step(target_network, x, torch.where(s > 0, s, torch.ones_like(s)), torch.zeros_like(s), labels)
        return torch.where(broadcast_like(s > 0, x).bool(), image, x)

    @torch.no_grad()
    def _follow_teacher(self, x: Tensor, batch: Batch, i: Tensor, h: Tensor) -> Tensor:
        """``h`` steps down the grid from its i-th noise level; images at their last noise level stay."""
        grid = self.grid.to(device=x.device)
        for k in range(int(h.max())):
            rows = (h > k).nonzero()[:, 0]
            some, at = batch.select(rows), i[rows] + k
            field = ode_field(some.condition(self.teacher), some.labels)
            x = x.index_copy(0, rows, self.solver(field, x[rows], grid[at], grid[at + 1]))
        return x

    def update(self, model: nn.Module, progress: float) -> None:
        if self.target is not None:
            ema_update(self.target, model, self.decay)


def choose_steps(n: int, most: int) -> Choice:
    """``i < n - 1`` uniform, ``h`` uniform from 1 to ``most`` or all that are left, ``j`` uniform from i + h on."""

    def choice(one: Tensor, two: Tensor, three: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        i = (one * (n - 1)).long()
        h = 1 + (two * (n - 1 - i).clamp(max=most)).long()
        return i, h, i + h + (three * (n - i - h)).long()

    return choice


def ctm(
    teacher: Denoiser,
    *,
    steps: StepsOption = 18,
    substeps: Annotated[int, Option("most solver steps along the teacher's ODE at a time", at_least(1))] = 17,
    solver: SolverOption = "heun",
    metric: MetricOption = "l2",
    decay: DecayOption = 0.95,
    balance: Annotated[float, Option("weight of the denoising term", at_least(0))] = 0.05,
    P_mean: PMeanOption = -1.2,
    P_std: PStdOption = 1.2,
    weight: WeightOption = "edm",
    rho: RhoOption = 7.0,
    sigma_min: SigmaMinOption = 0.002,
    sigma_max: SigmaMaxOption = 80.0,
    sigma_data: SigmaDataOption = 0.5,
) -> Trajectory:
    """Consistency trajectory model: a flow map, which steps from any noise level to any lower one.

    Formula: ``G(x, t, s) = (s/t) x + (1 - s/t) g(x, t, s)``,
    ``loss = d(G^-(G(x_t, t, s), s, 0), G^-(G^-(x_u, u, s), s, 0)) + balance w(v) |g(x_v, v, v) - x_0|^2``
    Paper: Kim et al. 2023, arXiv 2310.02279, algorithm 1, without the adversarial term.
    Use: when samples of many steps shall keep getting better, or follow the ODE (--gamma 0).

    The teacher's solver takes up to ``substeps`` steps of a Karras schedule. The paper sets ``balance`` anew at each
    step so that both gradients are as long in the last layer, which would tie the loss of an image to those beside it.
    """
    return Trajectory(
        teacher,
        registry.build("solvers", solver),
        karras(steps, sigma_min, sigma_max, rho),
        choose_steps(steps, substeps),
        metric_called(metric),
        decay,
        DenoisingTerm(lambda u: log_normal(u, P_mean, P_std), weight_called(weight, sigma_data), balance),
    )
