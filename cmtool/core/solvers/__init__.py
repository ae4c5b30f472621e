"""Solvers of an ordinary differential equation: each carries x from one time, or noise level, to another."""

from cmtool.core.solvers.library import euler, heun
from cmtool.core.solvers.step import Field, Solver, begin, integrate
from cmtool.core.solvers.tableaux import RungeKutta

__all__ = ["Field", "RungeKutta", "Solver", "begin", "euler", "heun", "integrate"]
