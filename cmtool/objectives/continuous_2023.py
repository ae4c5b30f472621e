"""Consistency training (cct) and distillation (ccd) in continuous time (Song et al. 2023, arXiv 2303.01469, app. B.2).

They are what consistency distillation and training become on a Karras grid of N levels as N grows. With ``sigma =
(a + v (b - a))^rho`` and v uniform on [0, 1], neighbours are ``df/dv / (N - 1)`` apart:

    gradient  metric  loss                             from
    full      l2      |df/dv|^2                        theorem 3: N^2 times the loss
    full      l1      |df/dv|_1                        theorem 4: N times the loss
    stop      l2      |f - sg(f - df/dv)|^2            theorems 5 and 6: N times the gradient
    stop      l1      |f - sg(f - sign(df/dv))|^2 / 2  the same

The last two are the paper's products ``f . sg(df/dv)`` completed to squares: the same gradient, and a value that can be
read. Without a teacher only they will do, for the square of a slope that is right on average is not.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from cmtool.core.denoiser import Denoise, Denoiser, broadcast_like
from cmtool.core.jvp import reverse_twice
from cmtool.errors import unknown_name
from cmtool.objectives.continuous import (
    Continuous,
    Tangent,
    TrajectoryVelocity,
    build_derivative,
    velocity_of_noise,
    velocity_of_teacher,
)
from cmtool.objectives.distances import l1, l2

__all__ = ["ccd", "cct", "continuous_loss"]


Distance = Callable[[Tensor, Tensor], Tensor]  # (f with gradients, its change) -> [B]
STOP_GRADIENT: dict[str, Distance] = {
    "l2": lambda here, change: l2(here, (here - change).detach()),
    "l1": lambda here, change: l2(here, (here - change.sign()).detach()) / 2,
}
FULL_GRADIENT: dict[str, Distance] = {
    "l2": lambda here, change: l2(change, torch.zeros_like(change)),
    "l1": lambda here, change: l1(change, torch.zeros_like(change)),
}


def identity_output(model: Denoise, x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
    """The consistency function is its own output."""
    return model(x, sigma, labels)


def continuous_loss(
    slope: TrajectoryVelocity,
    *,
    metric: str,
    stop: bool,
    clock: str,
    tangent: str,
    rho: float,
    sigma_min: float,
    sigma_max: float,
    teacher: Denoiser | None = None,
) -> Continuous:
    """One of the four; ``clock`` "time" takes ``df/dsigma`` for ``df/dv``, as the authors' program does."""
    distances, (low, high) = STOP_GRADIENT if stop else FULL_GRADIENT, (s ** (1 / rho) for s in (sigma_min, sigma_max))
    clocks: dict[str, Callable[[Tensor], Tensor]] = {  # d ln sigma / dv
        "grid": lambda sigma: rho * (high - low) * sigma ** (-1 / rho),
        "time": lambda sigma: 1 / sigma,
    }
    if metric not in distances:
        raise unknown_name("metric", metric, distances)
    if clock not in clocks:
        raise unknown_name("clock", clock, clocks)

    def error(tangent: Tangent, progress: float) -> Tensor:
        return distances[metric](tangent.here, broadcast_like(clocks[clock](tangent.sigma), tangent.dy) * tangent.dy)

    return Continuous(
        levels=lambda u: (low + u * (high - low)) ** rho,
        slope=slope,
        output=identity_output,
        derivative=build_derivative(tangent) if stop else reverse_twice,
        error=error,
        sigma_min=sigma_min,
        teacher=teacher,
    )


def cct(
    *,
    metric: str = "l2",
    clock: str = "time",
    tangent: str = "jvp",
    rho: float = 7.0,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
) -> Continuous:
    """The limit of ``ct`` for a grid without end: f is moved against its change along the noise of each image.

    ``metric`` is "l2" or "l1"; ``tangent`` is "jvp" or "difference". ``clock`` is the variable of the derivative:
    "time" as the authors' program has it, or "grid", as ``ct`` would have it, whose pull at the highest levels is hard
    to bear. The authors start from a score model and learn at rates near 5e-6.
    """
    return continuous_loss(
        velocity_of_noise,
        metric=metric,
        stop=True,
        clock=clock,
        tangent=tangent,
        rho=rho,
        sigma_min=sigma_min,
        sigma_max=sigma_max,
    )


def ccd(
    teacher: Denoiser,
    *,
    metric: str = "l2",
    stop: bool = True,
    clock: str = "time",
    tangent: str = "jvp",
    rho: float = 7.0,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
) -> Continuous:
    """The limit of ``cd`` for a grid without end: f is to stand still along the teacher's ODE.

    ``stop`` false differentiates through the change itself, which takes twice the time and memory and has no use for
    ``tangent``; the other options are those of ``cct``.
    """
    return continuous_loss(
        velocity_of_teacher(teacher),
        metric=metric,
        stop=stop,
        clock=clock,
        tangent=tangent,
        rho=rho,
        sigma_min=sigma_min,
        sigma_max=sigma_max,
        teacher=teacher,
    )
