"""The continuous-time losses of the first paper (Song et al. 2023, arXiv 2303.01469, appendix B.2).

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

from cmtool.core.denoiser import Denoise, Denoiser, like
from cmtool.core.forward import reverse_twice
from cmtool.errors import unknown
from cmtool.objectives.continuous import Continuous, Slope, Tangent, derivative_called
from cmtool.objectives.metrics import l1, l2

__all__ = ["still"]

Distance = Callable[[Tensor, Tensor], Tensor]  # (f with gradients, its change) -> [B]
STOPPED: dict[str, Distance] = {
    "l2": lambda here, change: l2(here, (here - change).detach()),
    "l1": lambda here, change: l2(here, (here - change.sign()).detach()) / 2,
}
FULL: dict[str, Distance] = {
    "l2": lambda here, change: l2(change, torch.zeros_like(change)),
    "l1": lambda here, change: l1(change, torch.zeros_like(change)),
}


def itself(model: Denoise, x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
    """The consistency function is its own output."""
    return model(x, sigma, labels)


def still(
    slope: Slope,
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
    distances, (low, high) = STOPPED if stop else FULL, (s ** (1 / rho) for s in (sigma_min, sigma_max))
    clocks: dict[str, Callable[[Tensor], Tensor]] = {  # d ln sigma / dv
        "grid": lambda sigma: rho * (high - low) * sigma ** (-1 / rho),
        "time": lambda sigma: 1 / sigma,
    }
    if metric not in distances:
        raise unknown("metric", metric, distances)
    if clock not in clocks:
        raise unknown("clock", clock, clocks)

    def error(tangent: Tangent, progress: float) -> Tensor:
        return distances[metric](tangent.here, like(clocks[clock](tangent.sigma), tangent.dy) * tangent.dy)

    return Continuous(
        levels=lambda u: (low + u * (high - low)) ** rho,
        slope=slope,
        output=itself,
        derivative=derivative_called(tangent) if stop else reverse_twice,
        error=error,
        sigma_min=sigma_min,
        teacher=teacher,
    )
