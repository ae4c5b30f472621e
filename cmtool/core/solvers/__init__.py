"""Solvers of an ordinary differential equation: each carries x from one time, or noise level, to another."""

from cmtool.core.solvers.runge_kutta import RungeKutta, euler, heun
from cmtool.core.solvers.solver import Field, Solver, integrate, start_solver

__all__ = ["Field", "RungeKutta", "Solver", "euler", "heun", "integrate", "start_solver"]
