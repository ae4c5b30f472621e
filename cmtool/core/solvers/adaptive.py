"""ODE solvers that choose their own steps from a tolerance: RK45 (Dormand-Prince) and those of scipy."""

import math
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from cmtool.core.denoiser import broadcast_like
from cmtool.core.process import VE
from cmtool.core.solvers.runge_kutta import NativeTimeSolver, weighted_step
from cmtool.core.solvers.solver import Field, OneStepMethod, Solver
from cmtool.errors import Diverged
from cmtool.options.plugin_option import Option
from cmtool.options.types import positive

__all__ = ["DormandPrince", "Scipy", "rk45", "scipy"]


# Dormand and Prince 1980, A family of embedded Runge-Kutta formulae: order 5, and 4 to tell the error.
C = (1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
A = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
ERROR_WEIGHTS = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)
SAFETY, SHRINK, GROW = 0.9, 0.2, 5.0

RtolOption = Annotated[float, Option("error of a step that is allowed, relative to x", positive())]
AtolOption = Annotated[float, Option("error of a step that is allowed beside that, absolute", positive())]


@dataclass(frozen=True)
class DormandPrince(OneStepMethod):
    """RK45 with steps of its own for every row of the batch, so that none depends on the others.

    A step is taken when the root mean square of ``error / (atol + rtol max(|x|, |x_new|))`` is at most 1. The slope at
    its end begins the next one, so a step is 6 NFE, taken or not. All arithmetic stays on the device; the
    host reads once a step whether any row has not arrived. Raises Diverged where no step is small enough.
    """

    rtol: float = 1e-4
    atol: float = 1e-4
    order: int = 5
    nfe_per_step: None = None

    def __call__(self, field: Field, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        t, s = (v.to(x.device, torch.float64).expand(len(x)) for v in (t, s))
        slope, span = field(x, t), (s - t).abs()
        h = (s - t).sign() * (0.01 * _rms(x) / _rms(slope).clamp(min=1e-30)).clamp(max=span)
        moving, lost = [True], [False]
        while any(moving):
            if any(lost):
                raise Diverged("no step of rk45 is small enough for the model's answers", "raise rtol and atol")
            arrives = h.abs() >= (s - t).abs()
            end = torch.where(arrives, s, t + h)
            new, last, error = self._attempt(field, x, t, end, slope)
            ratio = self._ratio(error, x, new)
            taken = ratio <= 1
            x, slope = (torch.where(broadcast_like(taken, x).bool(), a, b) for a, b in ((new, x), (last, slope)))
            h = (end - t) * (SAFETY * ratio**-0.2).clamp(SHRINK, GROW)
            t = torch.where(taken, end, t)
            moving, lost = torch.stack([t != s, ~taken & ~(h.abs() > 1e-12 * span)]).tolist()
        return x

    @staticmethod
    def _attempt(field: Field, x: Tensor, t: Tensor, end: Tensor, slope: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x and the slope at the end of a step, and the difference between the two orders."""
        h, slopes, new = end - t, [slope], x
        for c, row in zip(C, A, strict=True):
            new = weighted_step(x, h, row, slopes)
            slopes.append(field(new, end if c == 1 else t + c * h))
        return new, slopes[-1], weighted_step(torch.zeros_like(x), h, ERROR_WEIGHTS, slopes)

    def _ratio(self, error: Tensor, x: Tensor, new: Tensor) -> Tensor:
        allowed = self.atol + self.rtol * torch.maximum(x.abs(), new.abs())
        return _rms(error / allowed).nan_to_num(torch.inf, torch.inf)


def _rms(x: Tensor) -> Tensor:
    return x.double().flatten(1).square().mean(1).sqrt()


def rk45(*, rtol: RtolOption = 1e-4, atol: AtolOption = 1e-4) -> Solver:
    """Runge-Kutta of order 5 by Dormand and Prince, with steps that keep the error below ``atol + rtol |x|``.

    They are steps in ln sigma, the time of a variance-exploding process: in sigma itself the slope blows up towards the
    image, where an estimate of the error that crosses 0 lets a wrong step pass.

    Formula: the tableau of the paper; order 5, 6 NFE a step, and as many steps as each image needs
    Paper: Dormand and Prince 1980, A family of embedded Runge-Kutta formulae.
    Use: for a given accuracy rather than a given cost.
    """
    return NativeTimeSolver(VE(1.0, math.e), DormandPrince(rtol, atol))


@dataclass(frozen=True)
class Scipy(OneStepMethod):
    """Any method of ``scipy.integrate.solve_ivp``, for small problems and checks.

    Every row is a system of its own, and the whole batch is evaluated for each: no row depends on the others.
    """

    method: str = "DOP853"
    rtol: float = 1e-5
    atol: float = 1e-5
    order: int = 5
    nfe_per_step: None = None

    def __call__(self, field: Field, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        t, s = (v.to(torch.float64).expand(len(x)) for v in (t, s))
        return torch.stack([self._row(field, x, t, float(s[i]), i) for i in range(len(x))])

    def _row(self, field: Field, x: Tensor, t: Tensor, s: float, i: int) -> Tensor:
        from scipy.integrate import solve_ivp

        def slope(time: float, flat: np.ndarray) -> np.ndarray:
            rows, times = x.clone(), t.clone()
            rows[i], times[i] = torch.from_numpy(flat).to(x).reshape(x[i].shape), time
            return _flat(field(rows, times)[i])

        found = solve_ivp(slope, (float(t[i]), s), _flat(x[i]), method=self.method, rtol=self.rtol, atol=self.atol)
        if not found.success:
            raise Diverged(f"scipy's {self.method} gave up: {found.message}")
        return torch.from_numpy(found.y[:, -1].copy()).to(x).reshape(x[i].shape)


def _flat(row: Tensor) -> np.ndarray:
    return row.double().flatten().cpu().numpy()


SCIPY_METHODS = ("RK23", "RK45", "DOP853", "Radau", "BDF", "LSODA")


def scipy(
    *,
    method: Annotated[str, Option("method of scipy.integrate.solve_ivp", choices=SCIPY_METHODS)] = "DOP853",
    rtol: RtolOption = 1e-5,
    atol: AtolOption = 1e-5,
) -> Solver:
    """``scipy.integrate.solve_ivp`` with any of its methods.

    Use: for small problems and checks; every image is solved by itself on the processor.
    """
    return Scipy(method, rtol, atol)
