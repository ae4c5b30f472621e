"""One loss for a family of papers: CD, CT, ECT and their relatives differ in five choices.

    L = w(t, r) d(f(x_t, t), f^-(x_r, r)),    t > r two noise levels of one trajectory

`pair` chooses the noise levels, `previous_point` leads from x_t to x_r (along the noise, or along the teacher's ODE),
`metric` is d, `weight` is w, and the target f^- is the model itself without gradient, or an average of its past.
"""

import copy
from collections.abc import Callable
from typing import Annotated

import torch
from torch import Tensor, nn

from cmtool.core.denoiser import Denoise, broadcast_like, ode_field
from cmtool.core.sigma_schedules import karras, karras_between
from cmtool.core.solvers import Solver, integrate
from cmtool.errors import unknown_name
from cmtool.objectives.distances import Metric
from cmtool.objectives.objective import Batch, Objective, Requirements, ema_update, same_dropout
from cmtool.options.plugin_option import Option
from cmtool.options.types import at_least, positive

__all__ = [
    "Consistency",
    "ECTBOption",
    "ECTKOption",
    "ECTQOption",
    "Pair",
    "PairWeight",
    "PairWeightOption",
    "Point",
    "PreviousPoint",
    "adjacent_pair",
    "along_noise",
    "along_teacher",
    "constant_weight",
    "ect_ratio",
    "inverse_gap",
    "inverse_output",
    "pair_weight",
    "truncated_snr",
]

Pair = Callable[[Tensor, float], tuple[Tensor, Tensor]]  # (u [B], progress) -> (t [B], r [B])
PreviousPoint = Callable[[Tensor, Batch, Tensor, Tensor], Tensor]  # (x_t, batch, t, r) -> x_r
PairWeight = Callable[[Tensor, Tensor], Tensor]  # (t, r) -> [B]
Point = tuple[Tensor, Tensor]  # an image [B, ...] and its noise level [B]


def adjacent_pair(u: Tensor, n: int, sigma_min: float, sigma_max: float, rho: float = 7.0) -> tuple[Tensor, Tensor]:
    """A uniformly chosen pair of neighbours ``t > r`` on the Karras grid of ``n`` sigmas (Song et al. 2023, alg. 2)."""
    grid = karras(n, sigma_min, sigma_max, rho).to(u)
    i = (u * (n - 1)).long().clamp(max=n - 2)
    return grid[i], grid[i + 1]


ECTQOption = Annotated[float, Option("q of r(t): the gap between r and t shrinks by q each stage", positive())]
ECTKOption = Annotated[float, Option("k of r(t): how much wider the gap is at low noise levels", at_least(0))]
ECTBOption = Annotated[float, Option("b of r(t): how fast the gap narrows as t grows", at_least(0))]


def ect_ratio(t: Tensor, stage: float, q: float = 2.0, k: float = 8.0, b: float = 1.0) -> Tensor:
    """ECT's mapping function r(t), the lower noise level [B] of a pair for the higher one ``t`` [B].

    ``r = max(0, t (1 - (1 + k sigmoid(-b t)) / q^(stage + 1)))``. Source: Geng et al. 2024, arXiv 2406.14548.
    """
    return (t * (1 - (1 + k * torch.sigmoid(-b * t)) / q ** (stage + 1))).clamp(min=0)


def along_noise(x_t: Tensor, batch: Batch, t: Tensor, r: Tensor) -> Tensor:
    """``x + r z``: the same image and noise at r, an unbiased step when the data are the teacher."""
    return batch.x + broadcast_like(r, x_t) * batch.z


def along_teacher(teacher: Denoise, solver: Solver, substeps: int = 1, rho: float = 7.0) -> PreviousPoint:
    """``substeps`` steps of ``solver`` along the teacher's probability-flow ODE, even in ``sigma^(1/rho)``."""

    @torch.no_grad()
    def previous_point(x_t: Tensor, batch: Batch, t: Tensor, r: Tensor) -> Tensor:
        field = ode_field(batch.condition(teacher), batch.labels)
        *_, x_r = integrate(field, x_t, karras_between(t, r, substeps, rho), solver)
        return x_r

    return previous_point


def constant_weight(t: Tensor, r: Tensor) -> Tensor:
    """``w = 1``."""
    return torch.ones_like(t)


def inverse_gap(t: Tensor, r: Tensor) -> Tensor:
    """``w = 1 / (t - r)`` (Song and Dhariwal 2023; Geng et al. 2024)."""
    return 1 / (t - r)


def truncated_snr(t: Tensor, r: Tensor) -> Tensor:
    """``w = max(1 / t^2, 1)`` (Salimans and Ho 2022, arXiv 2202.00512, section 4)."""
    return (t**-2).clamp(min=1)


def inverse_output(sigma_data: float, power: float = 1.0) -> PairWeight:
    """``w = 1 / c_out^power``: differences of the network's own output count alike at every noise level."""

    def weight(t: Tensor, r: Tensor) -> Tensor:
        return ((t**2 + sigma_data**2).sqrt() / (t * sigma_data)) ** power

    return weight


PAIR_WEIGHTS: dict[str, Callable[[float], PairWeight]] = {  # of sigma_data
    "uniform": lambda d: constant_weight,
    "gap": lambda d: inverse_gap,
    "root-gap": lambda d: lambda t, r: (t - r) ** -0.5,
    "output": inverse_output,
    "variance": lambda d: inverse_output(d, 2),
    "snr": lambda d: lambda t, r: t**-2,
    "snr+1": lambda d: lambda t, r: t**-2 + 1,
    "karras": lambda d: lambda t, r: t**-2 + d**-2,
    "truncated-snr": lambda d: truncated_snr,
}
PairWeightOption = Annotated[str, Option("weight of a pair of noise levels in the loss", choices=tuple(PAIR_WEIGHTS))]


def pair_weight(name: str, sigma_data: float = 0.5) -> PairWeight:
    """The weight of a pair of noise levels called ``name``; UsageError when there is none.

    | name          | w(t, r)                  | it is                                      |
    |---------------|--------------------------|--------------------------------------------|
    | uniform       | 1                        | Song et al. 2023                           |
    | gap           | 1 / (t - r)              | iCT, ECT on CIFAR-10                       |
    | root-gap      | 1 / sqrt(t - r)          |                                            |
    | output        | 1 / c_out                | differences of F count alike, as a norm    |
    | variance      | 1 / c_out^2              | ECT on ImageNet                            |
    | snr           | 1 / t^2                  | OpenAI's names, from here on               |
    | snr+1         | 1 / t^2 + 1              |                                            |
    | karras        | 1 / t^2 + 1/sigma_data^2 | EDM's                                      |
    | truncated-snr | max(1 / t^2, 1)          | Salimans and Ho 2022                       |
    """
    if name not in PAIR_WEIGHTS:
        raise unknown_name("weight", name, PAIR_WEIGHTS)
    return PAIR_WEIGHTS[name](sigma_data)


class Consistency(Objective):
    """The pairwise loss; ``decay(progress)`` is the EMA decay of a separate target, None to use the model itself.

    ``requirements`` are, as a rule, ``Requirements("consistency", sigma_min)``.
    """

    def __init__(
        self,
        pair: Pair,
        previous_point: PreviousPoint,
        metric: Metric,
        weight: PairWeight = constant_weight,
        decay: Callable[[float], float] | None = None,
        requirements: Requirements | None = None,
        teacher: nn.Module | None = None,
    ):
        super().__init__(requirements or Requirements("consistency", 0.002))
        self.pair, self.previous_point, self.metric = pair, previous_point, metric
        self.weight, self.decay = weight, decay
        self.target: nn.Module | None = None
        self.teacher = teacher  # held so that it moves to the device with the objective

    def begin(self, model: nn.Module) -> None:
        if self.decay:
            self.target = copy.deepcopy(model).requires_grad_(False)

    def loss(self, model: Denoise, batch: Batch, progress: float) -> Tensor:
        t, r = self.pair(batch.u, progress)
        x_t = batch.x + broadcast_like(t, batch.x) * batch.z
        x_r = self.previous_point(x_t, batch, t, r)
        with same_dropout(x_t.device) as again:
            online = model(x_t, t, batch.labels)
            again()
            with torch.no_grad():
                target = self.target_output(model, (x_t, t), (x_r, r), batch)
        return self.weight(t, r).to(online) * self.metric(online, target)

    def target_output(self, model: Denoise, above: Point, below: Point, batch: Batch) -> Tensor:
        """What ``f(x_t, t)`` is compared with: the target at r.

        At or below the boundary that is x_r itself, and ln r need not exist.
        """
        x_r, r = below
        network = batch.condition(self.target) if self.target else model
        is_above = r > self.requirements.sigma_min
        # r has no meaning for the others, so they get a noise level that the network knows.
        output = network(x_r, torch.where(is_above, r, torch.ones_like(r)), batch.labels)
        return torch.where(broadcast_like(is_above, x_r).bool(), output, x_r)

    def update(self, model: nn.Module, progress: float) -> None:
        if self.target is not None and self.decay is not None:
            ema_update(self.target, model, self.decay(progress))
