"""What an ODE solver has to be."""

import math

import torch
from torch import Tensor

from cmtool.core.denoiser import like
from cmtool.core.grids import log_uniform
from cmtool.core.solvers import Solver, integrate
from cmtool.testing.common import close, want

__all__ = ["check_solver"]


def check_solver(solver: Solver) -> None:
    """``solver(field, x, t, s)`` carries x from t to s; its error falls with the power ``.order`` of the step.

    The equation is the probability flow of Gaussian data, ``dx/dt = t x / (1 + t^2)``, whose solution is
    ``x sqrt((1 + s^2) / (1 + t^2))``, walked from 80 to 1/5 in 96 and in 192 steps even in ln t.
    ``.evaluations`` is how often a step calls the field; where it is None the solver chooses its own steps, and must
    come within 1/1000 of the solution in one call.
    """
    calls = 0

    def field(x: Tensor, t: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return like(t / (1 + t**2), x) * x

    def error(steps: int) -> float:
        grid, x = log_uniform(steps + 1, 0.2, 80.0), torch.full((1, 1), 80.0, dtype=torch.float64)
        *_, end = integrate(field, x, grid, solver)
        return abs(float(end) - 80 * math.sqrt((1 + 0.2**2) / (1 + 80.0**2)))

    if solver.evaluations is None:
        want(error(1) < 1e-3, f"the solution is met to 1/1000, not {error(1):.1g}")
    else:
        coarse, fine = error(96), error(192)
        each = calls / 288
        want(each == solver.evaluations, f"a step calls the field {solver.evaluations} times, not {each:g}")
        slope = math.log2(coarse / fine)
        want(abs(slope - solver.order) < 0.25, f"the error falls with order {solver.order} as stated, not {slope:.2f}")

    x, t, s = torch.tensor([[1.0, 2.0, 3.0], [2.0, 1.0, 0.7], [1.5, 0.9, 1.4]], dtype=torch.float64)
    x = x[:, None]
    alone = torch.cat([solver(field, x[i : i + 1], t[i], s[i]) for i in range(3)])
    want(close(solver(field, x, t, s), alone, 1e-12), "times [B] step each row between its own two times, up or down")
