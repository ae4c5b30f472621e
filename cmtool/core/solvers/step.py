"""What a solver is, and the walk along a grid that all of them share."""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Protocol

from torch import Tensor

__all__ = ["Field", "Solver", "Step", "begin", "integrate"]

Field = Callable[[Tensor, Tensor], Tensor]  # (x [B, ...], t [B] or []) -> dx/dt
Step = Callable[[Field, Tensor, Tensor, Tensor], Tensor]  # (field, x at t, t, s) -> x at s


class Solver(Protocol):
    """``solver(field, x, t, s)`` carries x [B, ...] from time t to time s; times are [B] or [].

    ``order`` is the power of the step with which the error of a walk falls. ``evaluations`` is how often a step calls
    the field, None where the solver decides as it goes. A solver that remembers earlier steps has ``begin()``, which
    returns a fresh one for a walk; called by itself it takes a first step.
    """

    @property
    def order(self) -> int: ...

    @property
    def evaluations(self) -> int | None: ...

    def __call__(self, field: Field, x: Tensor, t: Tensor, s: Tensor) -> Tensor: ...


def begin(solver: Solver) -> Step:
    """The solver for one walk: with an empty memory where it has one, else as it is."""
    fresh = getattr(solver, "begin", None)
    return fresh() if fresh else solver


def integrate(field: Field, x: Tensor, grid: Tensor, solver: Solver) -> Iterator[Tensor]:
    """Walk along ``grid`` [n + 1], up or down, yielding x after each of the n steps."""
    step = begin(solver)
    for t, s in pairwise(grid):
        x = step(field, x, t, s)
        yield x
