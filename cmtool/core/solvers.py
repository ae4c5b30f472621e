"""One step of an ordinary differential equation, from one time to another."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

from torch import Tensor

from cmtool.core.denoiser import like

__all__ = ["Field", "RungeKutta", "Solver", "euler", "heun", "integrate"]

Field = Callable[[Tensor, Tensor], Tensor]  # (x [B, ...], t [B] or []) -> dx/dt


class Solver(Protocol):
    """``solver(field, x, t, s)`` carries x [B, ...] from time t to time s; times are [B] or []."""

    @property
    def order(self) -> int: ...

    @property
    def evaluations(self) -> int: ...

    def __call__(self, field: Field, x: Tensor, t: Tensor, s: Tensor) -> Tensor: ...


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
            slopes.append(field(self._along(x, h, row, slopes), at))
        return self._along(x, h, self.b, slopes)

    @staticmethod
    def _along(x: Tensor, h: Tensor, weights: tuple[float, ...], slopes: list[Tensor]) -> Tensor:
        if not weights:
            return x
        return x + like(h, x) * sum(w * k for w, k in zip(weights, slopes, strict=True) if w)


def euler() -> Solver:
    """Euler's method; on the probability-flow ODE in sigma it is DDIM (Song et al. 2021, arXiv 2010.02502)."""
    return RungeKutta(1, a=((),), b=(1.0,))


def heun() -> Solver:
    """Heun's method: the trapezoidal rule with an Euler predictor (Karras et al. 2022, algorithm 1)."""
    return RungeKutta(2, a=((), (1.0,)), b=(0.5, 0.5))


def integrate(field: Field, x: Tensor, grid: Tensor, solver: Solver) -> Iterator[Tensor]:
    """Walk along ``grid`` [n + 1], up or down, yielding x after each of the n steps."""
    for t, s in pairwise(grid):
        x = solver(field, x, t, s)
        yield x
