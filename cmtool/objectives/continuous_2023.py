"""Consistency training (cct) and distillation (ccd) in continuous time (Song et al. 2023, arXiv 2303.01469, app. B.2).

They are what consistency distillation and training become on a Karras schedule of N noise levels as N grows. With
``sigma = (a + v (b - a))^rho`` and v uniform on [0, 1], neighbours are ``df/dv / (N - 1)`` apart:

    gradient  metric  loss                             from
    full      l2      |df/dv|^2                        theorem 3: N^2 times the loss
    full      l1      |df/dv|_1                        theorem 4: N times the loss
    stop      l2      |f - sg(f - df/dv)|^2            theorems 5 and 6: N times the gradient
    stop      l1      |f - sg(f - sign(df/dv))|^2 / 2  the same

The last two are the paper's products ``f . sg(df/dv)`` completed to squares: the same gradient, and a value that can be
read. Without a teacher only they will do, for the square of a derivative that is right on average is not.
"""

from collections.abc import Callable
from typing import Annotated

from torch import Tensor

from cmtool.core.denoiser import Denoise, Denoiser, broadcast_like
from cmtool.core.jvp import reverse_twice
from cmtool.errors import unknown_name
from cmtool.objectives.continuous import (
    Continuous,
    Tangent,
    TangentOption,
    TangentRule,
    build_derivative,
    velocity_of_noise,
    velocity_of_teacher,
)
from cmtool.objectives.noise_levels import NoiseLevels
from cmtool.objectives.objective import Requirements, RhoOption, SigmaMaxOption, SigmaMinOption
from cmtool.options.plugin_option import Option

__all__ = ["ccd", "cct", "change_error"]


def mean_square(x: Tensor) -> Tensor:
    """The mean of the squared numbers of an image, [B]."""
    return x.square().flatten(1).mean(1)


def mean_magnitude(x: Tensor) -> Tensor:
    """The mean magnitude of the numbers of an image, [B]."""
    return x.abs().flatten(1).mean(1)


Distance = Callable[[Tensor, Tensor], Tensor]  # (f with gradients, its change) -> [B]
STOP_GRADIENT: dict[str, Distance] = {
    "l2": lambda f, change: mean_square(f - (f - change).detach()),
    "l1": lambda f, change: mean_square(f - (f - change.sign()).detach()) / 2,
}
FULL_GRADIENT: dict[str, Distance] = {
    "l2": lambda f, change: mean_square(change),
    "l1": lambda f, change: mean_magnitude(change),
}
CLOCKS = ("time", "grid")

ContinuousMetricOption = Annotated[str, Option("distance of f and of where it is moved", choices=tuple(STOP_GRADIENT))]
ClockOption = Annotated[
    str, Option("variable of the derivative: sigma, or the v of the Karras schedule", choices=CLOCKS)
]


def identity_output(model: Denoise, x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
    """The consistency function is its own output."""
    return model(x, sigma, labels)


def on_karras(sigma_min: float, sigma_max: float, rho: float) -> NoiseLevels:
    """``sigma = (a + u (b - a))^rho``, a and b the ends to the power 1/rho."""
    low, high = (s ** (1 / rho) for s in (sigma_min, sigma_max))
    return lambda u: (low + u * (high - low)) ** rho


def change_error(
    metric: str, clock: str, sigma_min: float, sigma_max: float, rho: float, stop: bool = True
) -> Callable[[Tangent, float], Tensor]:
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
        return distances[metric](tangent.online, broadcast_like(clocks[clock](tangent.sigma), tangent.dy) * tangent.dy)

    return error


def cct(
    *,
    metric: ContinuousMetricOption = "l2",
    clock: ClockOption = "time",
    tangent: TangentOption = "jvp",
    rho: RhoOption = 7.0,
    sigma_min: SigmaMinOption = 0.002,
    sigma_max: SigmaMaxOption = 80.0,
) -> Continuous:
    """Consistency training in continuous time: f is moved against its change along the noise of each image.

    Formula: ``loss = |f - sg(f - df/dsigma)|^2``
    Paper: Song et al. 2023, arXiv 2303.01469, appendix B.2, theorems 5 and 6.
    Use: with --init, a score model, and learning rates near 5e-6, as the authors do; 'sct' is its stable successor.

    The limit of 'ct' for a schedule without end. ``clock`` is "time" as the authors' program has it, or "grid", as
    'ct' would have it, whose pull at the highest noise levels is hard to bear.
    """
    return Continuous(
        TangentRule(
            on_karras(sigma_min, sigma_max, rho), velocity_of_noise, identity_output, build_derivative(tangent)
        ),
        change_error(metric, clock, sigma_min, sigma_max, rho),
        Requirements("consistency", sigma_min),
    )


def ccd(
    teacher: Denoiser,
    *,
    metric: ContinuousMetricOption = "l2",
    stop: Annotated[bool, Option("stop the gradient at the change of f")] = True,
    clock: ClockOption = "time",
    tangent: TangentOption = "jvp",
    rho: RhoOption = 7.0,
    sigma_min: SigmaMinOption = 0.002,
    sigma_max: SigmaMaxOption = 80.0,
) -> Continuous:
    """Consistency distillation in continuous time: f is to stay constant along the teacher's ODE.

    Formula: ``loss = |f - sg(f - df/dsigma)|^2``, or ``|df/dsigma|^2`` where the gradient is not stopped
    Paper: Song et al. 2023, arXiv 2303.01469, appendix B.2, theorems 3 to 5.
    Use: as the reference of distillation in continuous time; 'scd' is its stable successor.

    The limit of 'cd' for a schedule without end. ``stop`` false differentiates through the change itself, which takes
    twice the time and memory and has no use for ``tangent``; ``clock`` is that of 'cct'.
    """
    return Continuous(
        TangentRule(
            on_karras(sigma_min, sigma_max, rho),
            velocity_of_teacher(teacher),
            identity_output,
            build_derivative(tangent) if stop else reverse_twice,
        ),
        change_error(metric, clock, sigma_min, sigma_max, rho, stop),
        Requirements("consistency", sigma_min, differentiates_twice=not stop),
        teacher=teacher,
    )
