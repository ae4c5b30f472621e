"""Runge-Kutta solvers: Euler (DDIM), Heun, midpoint, RK4; in sigma, or in the native time of a process.

Where noise may be added (``churn`` to ``churn_noise``: S_churn, S_min, S_max and S_noise of Karras et al. 2022,
algorithm 2) the order is that of the ODE without it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from cmtool.core.denoiser import broadcast_like
from cmtool.core.process import Process
from cmtool.core.solvers.solver import Churn, ChurnedSolver, Field, Solver
from cmtool.errors import UsageError, unknown_name

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
    "with_churn",
]


def weighted_step(x: Tensor, h: Tensor, weights: Sequence[float], slopes: Sequence[Tensor]) -> Tensor:
    """``x + h sum_i w_i k_i``."""
    if not any(weights):
        return x
    return x + broadcast_like(h, x) * sum(w * k for w, k in zip(weights, slopes, strict=True) if w)


@dataclass(frozen=True)
class RungeKutta:
    """An explicit method as its tableau: ``k_i = field(x + h sum_j a_ij k_j, t + c_i h)``, ``x + h sum_i b_i k_i``."""

    order: int
    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]

    @property
    def nfe_per_step(self) -> int:
        return len(self.b)

    def __call__(self, field: Field, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        h, slopes = s - t, []
        for row in self.a:
            c = sum(row)
            at = t + c * h if c != 1 else s  # exactly the end, so that a level never overshoots by a rounding
            slopes.append(field(weighted_step(x, h, row, slopes), at))
        return weighted_step(x, h, self.b, slopes)


def second_order_rk(alpha: float) -> RungeKutta:
    """The second slope is taken ``alpha`` of the way: 1 is Heun's method, 2/3 Ralston's, 1/2 the midpoint.

    Source: Karras et al. 2022, arXiv 2206.00364, algorithm 3.
    """
    return RungeKutta(2, a=((), (alpha,)), b=(1 - 1 / (2 * alpha), 1 / (2 * alpha)))


@dataclass(frozen=True)
class Midpoint:
    """One slope for the whole step, taken at ``((t^p + s^p) / 2)^(1/p)``, or at ``sqrt(t s)`` for p = 0."""

    power: float
    order: int = 2
    nfe_per_step: int = 2

    def __call__(self, field: Field, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        p = self.power
        middle = ((t**p + s**p) / 2) ** (1 / p) if p else (t * s).sqrt()
        halfway = weighted_step(x, middle - t, (1.0,), [field(x, t)])
        return weighted_step(x, s - t, (1.0,), [field(halfway, middle)])


@dataclass(frozen=True)
class NativeTimeSolver:
    """A solver between noise levels that takes each step on ``y = s(t) x`` in the native time t of ``process``.

        dy/dt = f y + g^2 / (2 s sigma) dx/dsigma

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

    def __call__(self, field: Field, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        p = self.process
        begin, end = p.time(t), p.time(s)

        def native(y: Tensor, time: Tensor) -> Tensor:
            scale, sigma = p.scale(time), p.level(time)
            rate = p.diffusion(time) ** 2 / (2 * scale * sigma)
            return broadcast_like(p.drift(time), y) * y + broadcast_like(rate, y) * field(
                y / broadcast_like(scale, y), sigma
            )

        return self.solver(native, broadcast_like(p.scale(begin), x) * x, begin, end) / broadcast_like(p.scale(end), x)


def in_native_time(solver: Solver, process: Process) -> Solver:
    """The same solver with its steps in the native time of ``process``; UsageError for one that is made for sigma."""
    if isinstance(solver, ChurnedSolver):
        return ChurnedSolver(in_native_time(solver.ode, process), solver.churn_options)
    if not isinstance(solver, RungeKutta):
        raise UsageError(
            "this solver takes its steps in the noise level whatever the process",
            "leave out --process, or take --solver euler, heun or rk4",
        )
    return NativeTimeSolver(process, solver)


MIDPOINT_POWERS = {"cube-root": 1 / 3, "log": 0.0, "linear": 1.0}


def with_churn(ode: Solver, churn: float, low: float, high: float, noise: float) -> Solver:
    return ChurnedSolver(ode, Churn(churn, low, high, noise)) if churn else ode


def euler(
    *, churn: float = 0.0, churn_min: float = 0.0, churn_max: float = math.inf, churn_noise: float = 1.0
) -> Solver:
    """Euler's method; on the probability-flow ODE in sigma it is DDIM (Song et al. 2021, arXiv 2010.02502)."""
    return with_churn(RungeKutta(1, a=((),), b=(1.0,)), churn, churn_min, churn_max, churn_noise)


def ddim(*, eta: float = 0.0) -> Solver:
    """DDIM: Euler's method with a part ``eta`` of the ancestral noise (Song et al. 2021, arXiv 2010.02502, eq. 16)."""
    return ChurnedSolver(euler(), Churn(eta=eta)) if eta else euler()


def ancestral(*, eta: float = 1.0) -> Solver:
    """DDIM with all of the noise: each step is a draw from ``p(x_s | x_t, x_0 = D)`` (Ho et al. 2020, eq. 6-7)."""
    return ddim(eta=eta)


def heun(
    *,
    alpha: float = 1.0,
    churn: float = 0.0,
    churn_min: float = 0.0,
    churn_max: float = math.inf,
    churn_noise: float = 1.0,
) -> Solver:
    """Heun's method: the trapezoidal rule with an Euler predictor (Karras et al. 2022, algorithm 1).

    ``alpha`` below 1 takes the second slope there, as in their algorithm 3.
    """
    if not 0 < alpha <= 1:
        raise UsageError(f"alpha of the solver heun lies above 0 and up to 1, not at {alpha:g}")
    return with_churn(second_order_rk(alpha), churn, churn_min, churn_max, churn_noise)


def midpoint(
    *,
    mean: str = "cube-root",
    churn: float = 0.0,
    churn_min: float = 0.0,
    churn_max: float = math.inf,
    churn_noise: float = 1.0,
) -> Solver:
    """The midpoint method; the middle is the ``mean`` of the two levels.

    "cube-root" is OpenAI's sampler ``dpm``, "log" k-diffusion's ``dpm_2`` (DPM-Solver-2: Lu et al. 2022, arXiv
    2206.00927), "linear" the textbook's.
    """
    if mean not in MIDPOINT_POWERS:
        raise unknown_name("mean of the solver midpoint", mean, MIDPOINT_POWERS)
    return with_churn(Midpoint(MIDPOINT_POWERS[mean]), churn, churn_min, churn_max, churn_noise)


def rk4() -> Solver:
    """The classical Runge-Kutta method."""
    return RungeKutta(4, a=((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)), b=(1 / 6, 1 / 3, 1 / 3, 1 / 6))
