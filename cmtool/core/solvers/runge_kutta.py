"""Runge-Kutta solvers: Euler (DDIM), Heun, midpoint, RK4; in sigma, or in the native time of a process.

Where noise may be added (``churn`` to ``churn_noise``: S_churn, S_min, S_max and S_noise of Karras et al. 2022,
algorithm 2) the order is that of the ODE without it. A step is always the ODE's: ``solver.py: Churn`` says how much
noise comes between the steps, and ``core/sampling/loops.py: probability_flow`` adds it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Self

from torch import Tensor

from cmtool.core.denoiser import broadcast_like
from cmtool.core.process import Process
from cmtool.core.solvers.solver import (
    NO_CHURN,
    Churn,
    ChurnMaxOption,
    ChurnMinOption,
    ChurnNoiseOption,
    ChurnOption,
    Field,
    OneStepMethod,
    Solver,
)
from cmtool.errors import UsageError
from cmtool.options.plugin_option import Option
from cmtool.options.types import Check, between

__all__ = [
    "Midpoint",
    "NativeTimeSolver",
    "RungeKutta",
    "ancestral",
    "ddim",
    "euler",
    "heun",
    "in_native_time",
    "midpoint",
    "rk4",
    "second_order_rk",
    "weighted_step",
]


def weighted_step(x: Tensor, h: Tensor, weights: Sequence[float], slopes: Sequence[Tensor]) -> Tensor:
    """``x + h sum_i w_i k_i``, shaped as x [B, ...]; ``h`` is [] or [B]."""
    if not any(weights):
        return x
    return x + broadcast_like(h, x) * sum(w * k for w, k in zip(weights, slopes, strict=True) if w)


@dataclass(frozen=True)
class RungeKutta(OneStepMethod):
    """An explicit method as its tableau: ``k_i = field(x + h sum_j a_ij k_j, t + c_i h)``, ``x + h sum_i b_i k_i``."""

    order: int
    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    churn: Churn = NO_CHURN

    @property
    def nfe_per_step(self) -> int:
        return len(self.b)

    def __call__(self, field: Field, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        h, slopes = s - t, []
        for row in self.a:
            c = sum(row)
            at = t + c * h if c != 1 else s  # exactly the end, so that a noise level never overshoots by a rounding
            slopes.append(field(weighted_step(x, h, row, slopes), at))
        return weighted_step(x, h, self.b, slopes)


@dataclass(frozen=True)
class Midpoint(OneStepMethod):
    """One slope for the whole step, taken at ``((t^p + s^p) / 2)^(1/p)``, or at ``sqrt(t s)`` for p = 0."""

    power: float
    churn: Churn = NO_CHURN
    order: int = 2
    nfe_per_step: int = 2

    def __call__(self, field: Field, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        p = self.power
        middle = ((t**p + s**p) / 2) ** (1 / p) if p else (t * s).sqrt()
        halfway = weighted_step(x, middle - t, (1.0,), [field(x, t)])
        return weighted_step(x, s - t, (1.0,), [field(halfway, middle)])


def euler(
    *,
    churn: ChurnOption = 0.0,
    churn_min: ChurnMinOption = 0.0,
    churn_max: ChurnMaxOption = math.inf,
    churn_noise: ChurnNoiseOption = 1.0,
) -> Solver:
    """Euler's method; on the probability-flow ODE in sigma it is DDIM.

    Formula: ``x_s = x_t + (s - t) field(x_t, t)``; order 1, 1 NFE a step
    Paper: Song et al. 2021 (DDIM), arXiv 2010.02502.
    Use: as the reference that other solvers are compared with, or in native time with --process.
    """
    return RungeKutta(1, a=((),), b=(1.0,), churn=Churn(churn, churn_min, churn_max, churn_noise))


def ddim(*, eta: Annotated[float, Option("part of the ancestral noise; 0 is the ODE", between(0, 1))] = 0.0) -> Solver:
    """DDIM: Euler's method with a part ``eta`` of the ancestral noise.

    Formula: ``x_d = x_t + (d - t) field(x_t, t)``, ``d^2 = s^2 - up^2``, ``x_s = x_d + up z``,
        ``up = eta s sqrt(1 - s^2/t^2)``; order 1, 1 NFE a step
    Paper: Song et al. 2021, arXiv 2010.02502, eq. 16.
    Use: to reproduce results that were sampled with DDIM.
    """
    return RungeKutta(1, a=((),), b=(1.0,), churn=Churn(eta=eta))


def ancestral(
    *, eta: Annotated[float, Option("part of the ancestral noise; 1 is all of it", between(0, 1))] = 1.0
) -> Solver:
    """Euler's method with ancestral noise: each step is a draw from ``p(x_s | x_t, x_0 = D)``.

    Formula: as ``ddim``, with eta 1 as default
    Paper: Ho et al. 2020, arXiv 2006.11239, eq. 6-7.
    Use: to reproduce k-diffusion's and OpenAI's sampler euler_ancestral; DDPM's own is the sampler sde-ancestral.
    """
    return ddim(eta=eta)


def second_order_rk(alpha: float, churn: Churn = NO_CHURN) -> RungeKutta:
    """The second slope is taken at t + alpha (s - t): 1 is Heun's method, 2/3 Ralston's, 1/2 the midpoint.

    Source: Karras et al. 2022, arXiv 2206.00364, algorithm 3.
    """
    return RungeKutta(2, a=((), (alpha,)), b=(1 - 1 / (2 * alpha), 1 / (2 * alpha)), churn=churn)


def heun(
    *,
    alpha: Annotated[
        float,
        Option("where the second slope is taken, as part of the step", Check(lambda a: 0 < a <= 1, "above 0, up to 1")),
    ] = 1.0,
    churn: ChurnOption = 0.0,
    churn_min: ChurnMinOption = 0.0,
    churn_max: ChurnMaxOption = math.inf,
    churn_noise: ChurnNoiseOption = 1.0,
) -> Solver:
    """Heun's method: the trapezoidal rule with an Euler predictor, the sampler of EDM.

    Formula: ``d = field(x, t)``, ``d' = field(x + alpha h d, t + alpha h)``,
        ``x_s = x + h ((1 - 1/(2 alpha)) d + d'/(2 alpha))``, ``h = s - t``; order 2, 2 NFE a step
    Paper: Karras et al. 2022, arXiv 2206.00364, algorithm 1; alpha is that of algorithm 3, churn that of algorithm 2.
    Use: by default; with churn when about 36 NFE or more can be spent.
    """
    return second_order_rk(alpha, Churn(churn, churn_min, churn_max, churn_noise))


MIDPOINT_POWERS = {"cube-root": 1 / 3, "log": 0.0, "linear": 1.0}


def midpoint(
    *,
    mean: Annotated[
        str,
        Option(
            "which mean is the middle: cube-root is OpenAI's dpm, log is k-diffusion's dpm_2",
            choices=tuple(MIDPOINT_POWERS),
        ),
    ] = "cube-root",
    churn: ChurnOption = 0.0,
    churn_min: ChurnMinOption = 0.0,
    churn_max: ChurnMaxOption = math.inf,
    churn_noise: ChurnNoiseOption = 1.0,
) -> Solver:
    """The midpoint method, whose middle is a ``mean`` of the two noise levels.

    Formula: ``x_s = x + (s - t) field(x + (m - t) field(x, t), m)``, ``m = ((t^p + s^p)/2)^(1/p)``;
        order 2, 2 NFE a step
    Paper: DPM-Solver-2 for the mean log: Lu et al. 2022, arXiv 2206.00927.
    Use: to reproduce OpenAI's sampler dpm or k-diffusion's dpm_2.
    """
    return Midpoint(MIDPOINT_POWERS[mean], Churn(churn, churn_min, churn_max, churn_noise))


def rk4() -> Solver:
    """The classical Runge-Kutta method.

    Formula: ``x_s = x + h (k_1 + 2 k_2 + 2 k_3 + k_4)/6``; order 4, 4 NFE a step
    Use: for accurate trajectories with 100 NFE or more, such as likelihoods and inversion.
    """
    return RungeKutta(4, a=((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)), b=(1 / 6, 1 / 3, 1 / 3, 1 / 6))


@dataclass(frozen=True)
class NativeTimeSolver:
    """A solver between noise levels that takes each step on ``y = s(t) x`` in the native time t of ``process``.

        dy/dt = f y + g^2 / (2 s sigma) dx/dsigma

    ``solver`` is a one-step method.
    Source: Karras et al. 2022, arXiv 2206.00364, eq. 4, with ``f = s'/s`` and ``g = s sqrt(2 sigma sigma')``.
    """

    process: Process
    solver: Solver

    @property
    def order(self) -> int:
        return self.solver.order

    @property
    def nfe_per_step(self) -> int | None:
        return self.solver.nfe_per_step

    @property
    def churn(self) -> Churn:
        return self.solver.churn

    def begin(self) -> Self:
        return self

    def __call__(self, field: Field, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        p = self.process
        first, last = p.time(t), p.time(s)

        def native(y: Tensor, time: Tensor) -> Tensor:
            scale, sigma = p.scale(time), p.sigma(time)
            rate = p.diffusion(time) ** 2 / (2 * scale * sigma)
            return broadcast_like(p.drift(time), y) * y + broadcast_like(rate, y) * field(
                y / broadcast_like(scale, y), sigma
            )

        return self.solver(native, broadcast_like(p.scale(first), x) * x, first, last) / broadcast_like(
            p.scale(last), x
        )


def in_native_time(solver: Solver, process: Process) -> Solver:
    """The same solver with its steps in the native time of ``process``; UsageError for one that is made for sigma."""
    if not isinstance(solver, RungeKutta):
        raise UsageError(
            "this solver takes its steps in the noise level whatever the process",
            "leave out the process, or take the solver euler, heun or rk4",
        )
    return NativeTimeSolver(process, solver)
