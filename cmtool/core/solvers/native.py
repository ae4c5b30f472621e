"""Steps in a process's own time and scale."""

from dataclasses import dataclass

from torch import Tensor

from cmtool.core.denoiser import like
from cmtool.core.process import Process
from cmtool.core.solvers.step import Field, Solver
from cmtool.core.solvers.stochastic import Stirred
from cmtool.core.solvers.tableaux import RungeKutta
from cmtool.errors import UsageError

__all__ = ["Native", "native"]


@dataclass(frozen=True)
class Native:
    """A solver between noise levels that takes each step on ``y = s(t) x`` in the native time t of ``process``.

        dy/dt = f y + g^2 / (2 s sigma) dx/dsigma

    Source: Karras et al. 2022, arXiv 2206.00364, eq. 4, with ``f = s'/s`` and ``g = s sqrt(2 sigma sigma')``.
    """

    process: Process
    solver: Solver

    @property
    def order(self) -> int:
        return self.solver.order

    @property
    def evaluations(self) -> int | None:
        return self.solver.evaluations

    def __call__(self, field: Field, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        p = self.process
        begin, end = p.time(t), p.time(s)

        def native(y: Tensor, time: Tensor) -> Tensor:
            scale, sigma = p.scale(time), p.level(time)
            rate = p.diffusion(time) ** 2 / (2 * scale * sigma)
            return like(p.drift(time), y) * y + like(rate, y) * field(y / like(scale, y), sigma)

        return self.solver(native, like(p.scale(begin), x) * x, begin, end) / like(p.scale(end), x)


def native(solver: Solver, process: Process) -> Solver:
    """The same solver with its steps in the native time of ``process``; UsageError for one that is made for sigma."""
    if isinstance(solver, Stirred):
        return Stirred(native(solver.ode, process), solver.stir)
    if not isinstance(solver, RungeKutta):
        raise UsageError(
            "this solver takes its steps in the noise level whatever the process",
            "leave out --process, or take --solver euler, heun or rk4",
        )
    return Native(process, solver)
