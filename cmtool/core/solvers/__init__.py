"""Solvers of the probability-flow ODE: each carries x from one time, or noise level, to another."""

from cmtool.core.solvers.runge_kutta import RungeKutta, euler, heun
from cmtool.core.solvers.solver import Field, Solver, integrate

__all__ = ["Field", "RungeKutta", "Solver", "euler", "heun", "integrate"]
