"""What an ODE solver is, the loop over a sigma schedule that all share, and noise added between steps (churn, eta)."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Protocol, Self

from torch import Tensor

from cmtool.options.plugin_option import Option
from cmtool.options.types import at_least

__all__ = [
    "NO_CHURN",
    "Churn",
    "ChurnMaxOption",
    "ChurnMinOption",
    "ChurnNoiseOption",
    "ChurnOption",
    "Field",
    "OneStepMethod",
    "Solver",
    "Step",
    "integrate",
]


Field = Callable[[Tensor, Tensor], Tensor]  # (x [B, ...], t [B] or []) -> dx/dt
Step = Callable[[Field, Tensor, Tensor, Tensor], Tensor]  # (field, x at t, t, s) -> x at s


@dataclass(frozen=True)
class Churn:
    """How much noise sampling in n steps adds.

    Before a step from t within [low, high] the noise level is raised, with noise of ``scale`` times the right size:

        t_hat = t (1 + min(churn / n, sqrt(2) - 1)),    x_hat = x + scale sqrt(t_hat^2 - t^2) z

    After a step, which goes down to ``sqrt(s^2 - up^2)`` only, comes noise of standard deviation ``up``:

        up = eta s sqrt(1 - s^2 / t^2)

    ``nearest`` gives the noise level to use instead of t_hat, for a model that knows only some. The noise is added by
    ``core/sampling/loops.py: probability_flow``, between the steps of the solver.
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

# S_churn, S_min, S_max and S_noise of Karras et al. 2022, algorithm 2, for the solvers that take them.
ChurnOption = Annotated[
    float, Option("S_churn: noise added on the way, spread over the steps; 0 is the ODE", at_least(0))
]
ChurnMinOption = Annotated[float, Option("S_min: lowest noise level at which noise is added", at_least(0))]
ChurnMaxOption = Annotated[float, Option("S_max: highest noise level at which noise is added")]
ChurnNoiseOption = Annotated[float, Option("S_noise: factor on the noise that is added", at_least(0))]


class Solver(Protocol):
    """``solver(field, x, t, s)`` carries x [B, ...] from time t to time s; times are [B] or [].

    ``order`` is the power of the step size with which the error at the end falls. ``nfe_per_step`` is how often a step
    calls the field, None where the solver decides as it goes. ``churn`` is the noise that sampling adds between the
    steps, ``NO_CHURN`` for none; a step itself is always the ODE's. ``begin()`` gives the step function for one
    trajectory: a multistep method remembers earlier steps in it; called by itself it takes a first step.
    """

    @property
    def order(self) -> int: ...

    @property
    def nfe_per_step(self) -> int | None: ...

    @property
    def churn(self) -> Churn: ...

    def begin(self) -> Step: ...

    def __call__(self, field: Field, x: Tensor, t: Tensor, s: Tensor) -> Tensor: ...


class OneStepMethod:
    """What solvers have that remember nothing: each is its own step, and adds no noise unless it says so."""

    churn: Churn = NO_CHURN

    def begin(self) -> Self:
        return self


def integrate(field: Field, x: Tensor, grid: Tensor, solver: Solver) -> Iterator[Tensor]:
    """Solve along ``grid`` [n + 1], up or down, yielding x [B, ...] after each of the n steps."""
    step = solver.begin()
    for t, s in pairwise(grid):
        x = step(field, x, t, s)
        yield x
