"""What an ODE solver is, the loop over a sigma schedule that all share, and noise added on the way (churn, eta)."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

from torch import Tensor

__all__ = ["NO_CHURN", "Churn", "ChurnedSolver", "Field", "Solver", "Step", "integrate", "start_solver"]


Field = Callable[[Tensor, Tensor], Tensor]  # (x [B, ...], t [B] or []) -> dx/dt
Step = Callable[[Field, Tensor, Tensor, Tensor], Tensor]  # (field, x at t, t, s) -> x at s


class Solver(Protocol):
    """``solver(field, x, t, s)`` carries x [B, ...] from time t to time s; times are [B] or [].

    ``order`` is the power of the step with which the error of a walk falls. ``nfe_per_step`` is how often a step calls
    the field, None where the solver decides as it goes. A solver that remembers earlier steps has ``begin()``,
    which returns a fresh one for a walk; called by itself it takes a first step.
    """

    @property
    def order(self) -> int: ...

    @property
    def nfe_per_step(self) -> int | None: ...

    def __call__(self, field: Field, x: Tensor, t: Tensor, s: Tensor) -> Tensor: ...


def start_solver(solver: Solver) -> Step:
    """The solver for one walk: with an empty memory where it has one, else as it is."""
    fresh = getattr(solver, "begin", None)
    return fresh() if fresh else solver


def integrate(field: Field, x: Tensor, grid: Tensor, solver: Solver) -> Iterator[Tensor]:
    """Walk along ``grid`` [n + 1], up or down, yielding x after each of the n steps."""
    step = start_solver(solver)
    for t, s in pairwise(grid):
        x = step(field, x, t, s)
        yield x


@dataclass(frozen=True)
class Churn:
    """How much noise a walk of n steps takes in.

    Before a step from t within [low, high] the level is raised, with noise of ``scale`` times the right size:

        t_hat = t (1 + min(churn / n, sqrt(2) - 1)),    x_hat = x + scale sqrt(t_hat^2 - t^2) z

    After a step, which goes down to ``sqrt(s^2 - up^2)`` only, comes noise of level ``up``:

        up = eta s sqrt(1 - s^2 / t^2)

    ``nearest`` gives the level to use instead of t_hat, for a model that knows only some.
    Sources: Karras et al. 2022, arXiv 2206.00364, algorithm 2; Song et al. 2021, arXiv 2010.02502, eq. 16.
    """

    churn: float = 0.0
    low: float = 0.0
    high: float = math.inf
    scale: float = 1.0
    eta: float = 0.0
    nearest: Callable[[Tensor], Tensor] = lambda t: t

    def raised(self, t: Tensor, n: int) -> Tensor:
        """``t_hat``, or t itself where nothing is added."""
        gamma = min(self.churn / n, math.sqrt(2) - 1)
        return self.nearest(t * (1 + gamma)) if gamma and self.low <= t <= self.high else t

    def split(self, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """Where a step from t to s ends, and ``up``."""
        up = self.eta * s * (1 - (s / t) ** 2).clamp(min=0).sqrt()
        return ((s**2 - up**2).clamp(min=0).sqrt() if self.eta else s), up


NO_CHURN = Churn()


@dataclass(frozen=True)
class ChurnedSolver:
    """A solver whose walks take in noise; a step by itself is the ODE's."""

    ode: Solver
    churn_options: Churn

    @property
    def order(self) -> int:
        return self.ode.order

    @property
    def nfe_per_step(self) -> int | None:
        return self.ode.nfe_per_step

    def __call__(self, field: Field, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        return self.ode(field, x, t, s)
