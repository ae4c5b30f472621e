"""Noise on the way: added before a step of the ODE, or left for after it."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from cmtool.core.solvers.step import Field, Solver

__all__ = ["STILL", "Stir", "Stirred"]


@dataclass(frozen=True)
class Stir:
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


STILL = Stir()


@dataclass(frozen=True)
class Stirred:
    """A solver whose walks take in noise; a step by itself is the ODE's."""

    ode: Solver
    stir: Stir

    @property
    def order(self) -> int:
        return self.ode.order

    @property
    def evaluations(self) -> int | None:
        return self.ode.evaluations

    def __call__(self, field: Field, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        return self.ode(field, x, t, s)
