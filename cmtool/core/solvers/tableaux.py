"""Explicit methods that know nothing of the equation but its slope: Runge-Kutta, and midpoints of any mean."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from cmtool.core.denoiser import like
from cmtool.core.solvers.step import Field

__all__ = ["Midpoint", "RungeKutta", "along", "second_order"]


def along(x: Tensor, h: Tensor, weights: Sequence[float], slopes: Sequence[Tensor]) -> Tensor:
    """``x + h sum_i w_i k_i``."""
    if not any(weights):
        return x
    return x + like(h, x) * sum(w * k for w, k in zip(weights, slopes, strict=True) if w)


@dataclass(frozen=True)
class RungeKutta:
    """An explicit method as its tableau: ``k_i = field(x + h sum_j a_ij k_j, t + c_i h)``, ``x + h sum_i b_i k_i``."""

    order: int
    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]

    @property
    def evaluations(self) -> int:
        return len(self.b)

    def __call__(self, field: Field, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        h, slopes = s - t, []
        for row in self.a:
            c = sum(row)
            at = t + c * h if c != 1 else s  # exactly the end, so that a level never overshoots by a rounding
            slopes.append(field(along(x, h, row, slopes), at))
        return along(x, h, self.b, slopes)


def second_order(alpha: float) -> RungeKutta:
    """The second slope is taken ``alpha`` of the way: 1 is Heun's method, 2/3 Ralston's, 1/2 the midpoint.

    Source: Karras et al. 2022, arXiv 2206.00364, algorithm 3.
    """
    return RungeKutta(2, a=((), (alpha,)), b=(1 - 1 / (2 * alpha), 1 / (2 * alpha)))


@dataclass(frozen=True)
class Midpoint:
    """One slope for the whole step, taken at ``((t^p + s^p) / 2)^(1/p)``, or at ``sqrt(t s)`` for p = 0."""

    power: float
    order: int = 2
    evaluations: int = 2

    def __call__(self, field: Field, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        p = self.power
        middle = ((t**p + s**p) / 2) ** (1 / p) if p else (t * s).sqrt()
        halfway = along(x, middle - t, (1.0,), [field(x, t)])
        return along(x, s - t, (1.0,), [field(halfway, middle)])
