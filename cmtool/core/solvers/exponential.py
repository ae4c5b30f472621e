"""DPM-Solver++ and UniPC: exponential integrators of the probability-flow ODE, exact in its linear part.

With ``lambda = -ln sigma`` the equation is ``dx/dlambda = D - x``. Where D is the polynomial through D_0 at t and
further D_k at noise levels u_k, the step to s of length ``h = ln(t/s)`` has the closed form

    x_s = x + (s - t) dx/dsigma + sum_k w_k (D_k - D_0),    sum_k r_k^j w_k = j! h phi_{j+1}(-h),  r_k = ln(t/u_k) / h

The times of a solver are noise levels, and ``D = x - sigma dx/dsigma`` follows from the slope.
Sources: Lu et al. 2022, arXiv 2211.01095 (DPM-Solver++); Zhao et al. 2023, arXiv 2302.04867 (UniPC).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from cmtool.core.denoiser import broadcast_like
from cmtool.core.solvers.solver import NO_CHURN, Churn, Field, OneStepMethod, Solver
from cmtool.options.plugin_option import Option
from cmtool.options.types import Check

__all__ = [
    "Multistep",
    "Singlestep",
    "bh1",
    "bh2",
    "dpmpp_2m",
    "dpmpp_2s",
    "dpmpp_3m",
    "dpmpp_3s",
    "exact",
    "phi",
    "unipc",
]


Node = tuple[Tensor, Tensor]  # (noise level, the denoised image at it)
Rule = Callable[[Tensor, Tensor], Tensor]  # (h [...], r [K, ...]) -> the weights w [K, ...]


def phi(k: int, z: Tensor) -> Tensor:
    """``phi_0 = e^z``, ``phi_{k+1} = (phi_k - 1/k!) / z``, by its series where the recursion would lose digits."""
    series = sum(z**n * (1 / math.factorial(n + k)) for n in range(18))
    closed = z.exp()
    for j in range(k):
        closed = (closed - 1 / math.factorial(j)) / z
    return torch.where(z.abs() < 1, series, closed)


def exact(h: Tensor, r: Tensor, second: float = 1.0) -> Tensor:
    """The weights that integrate the polynomial; ``second`` multiplies its second derivative.

    ``h`` [...] and ``r`` [K, ...] as above; [K, ...].
    """
    powers = range(1, len(r) + 1)
    moments = [math.factorial(j) * h * phi(j + 1, -h) * (second if j == 2 else 1) for j in powers]
    rows = torch.stack([torch.stack([r_k**j for r_k in r], -1) for j in powers], -2)
    return torch.linalg.solve(rows, torch.stack(moments, -1)).movedim(-1, 0)


def bh2(h: Tensor, r: Tensor, second: float = 1.0) -> Tensor:
    """As published with ``B(h) = 1 - e^-h``: one node alone has the weight ``B / (2 r)``, more are exact."""
    return -torch.expm1(-h) / (2 * r) if len(r) == 1 else exact(h, r, second)


def bh1(h: Tensor, r: Tensor) -> Tensor:
    """The same with ``B(h) = h``."""
    return h / (2 * r) if len(r) == 1 else exact(h, r)


def uncorrected(h: Tensor, r: Tensor) -> Tensor:
    """DPM-Solver++ 3M in the form of its authors' code, whose second derivative is half of what it should be."""
    return bh2(h, r, second=0.5)


def advance(x: Tensor, start: Node, s: Tensor, nodes: list[Node], rule: Rule) -> Tensor:
    """x at s from x at ``start``, with D the polynomial through ``start`` and ``nodes``."""
    t, denoised = start
    out = denoised + broadcast_like(s / t, x) * (x - denoised)
    if nodes:
        h = (t / s).log()
        weights = rule(h, torch.stack([(t / u).log() / h for u, _ in nodes]))
        out = out + sum(broadcast_like(w, x) * (other - denoised) for w, (_, other) in zip(weights, nodes, strict=True))
    return out


def denoise(field: Field, x: Tensor, sigma: Tensor) -> Tensor:
    """``D = x - sigma dx/dsigma``."""
    return x - broadcast_like(sigma, x) * field(x, sigma)


@dataclass(frozen=True)
class Singlestep(OneStepMethod):
    """A step with further denoised images at noise levels ``t^(1-r) s^r``, each reached with the one before."""

    parts: tuple[float, ...]
    rule: Rule = exact

    @property
    def order(self) -> int:
        return len(self.parts) + 1

    @property
    def nfe_per_step(self) -> int:
        return len(self.parts) + 1

    def __call__(self, field: Field, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        start, nodes = (t, denoise(field, x, t)), []
        for part in self.parts:
            u = t * (s / t) ** part
            nodes = [(u, denoise(field, advance(x, start, u, nodes, self.rule), u))]
        return advance(x, start, s, nodes, self.rule)


def dpmpp_2s() -> Solver:
    """DPM-Solver++ 2S: a second denoised image at the middle of the step in ln sigma.

    Formula: ``x_s = D + (s/t)(x - D) + (1 - e^-h)(D_u - D)``, ``u = sqrt(t s)``, ``h = ln(t/s)``; order 2, 2 NFE a step
    Paper: Lu et al. 2022, arXiv 2211.01095, algorithm 1.
    Use: with fewer than 10 NFE, where methods of higher order are no better.
    """
    return Singlestep((1 / 2,), bh2)


def dpmpp_3s() -> Solver:
    """DPM-Solver++ 3S: further denoised images at one and two thirds of the step in ln sigma.

    Formula: ``x_s = D + (s/t)(x - D) + 3/2 h phi_2(-h)(D_v - D)``, ``v = t^(1/3) s^(2/3)``, reached by the same step
        from ``u = t^(2/3) s^(1/3)``, ``h = ln(t/s)``; order 3, 3 NFE a step
    Paper: Lu et al. 2022, arXiv 2211.01095.
    Use: with 13 to 20 NFE.
    """
    return Singlestep((1 / 3, 2 / 3), exact)


@dataclass(frozen=True)
class Multistep:
    """A method that remembers ``past`` earlier denoised images; one evaluation a step.

    A solver that ``corrects`` takes each step again once it knows D at its end: the evaluation that the next step
    begins with. So the last step of a trajectory stays as predicted, which costs no order.
    """

    order: int
    past: int
    corrects: bool = False
    rule: Rule = bh2
    nfe_per_step: int = 1
    churn: Churn = NO_CHURN

    def begin(self) -> "_History":
        return _History(self)

    def __call__(self, field: Field, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        return self.begin()(field, x, t, s)


class _History:
    """The steps of one trajectory, with the denoised images of those before."""

    def __init__(self, method: Multistep):
        self.method = method
        self.known: list[Node] = []  # the latest first

    def __call__(self, field: Field, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        found = (t, denoise(field, x, t))
        if self.method.corrects and self.known:
            x = self._advance(self.x, t, found)
        self.x, self.known = x, [found, *self.known][: self.method.past + 1]
        return self._advance(x, s)

    def _advance(self, x: Tensor, s: Tensor, *more: Node) -> Tensor:
        latest, *before = self.known
        return advance(x, latest, s, [*before, *more], self.method.rule)


def dpmpp_2m() -> Solver:
    """DPM-Solver++ 2M: the polynomial through this denoised image and the one before.

    Formula: ``x_s = D + (s/t)(x - D) + (1 - e^-h)(D_u - D)/(2 r)``, ``h = ln(t/s)``, ``r = ln(t/u)/h`` with u the noise
        level before t; order 2, 1 NFE a step
    Paper: Lu et al. 2022, arXiv 2211.01095, algorithm 2.
    Use: with 5 to 20 NFE; the first to try when heun is too slow.
    """
    return Multistep(order=2, past=1)


def dpmpp_3m(
    *, corrected: Annotated[bool, Option("false: the form of its authors' code, of order 2")] = True
) -> Solver:
    """DPM-Solver++ 3M: the polynomial through this denoised image and the two before.

    The code of its authors, and what was copied from it, halves the second derivative by mistake and is of order 2;
    ``corrected=False`` repeats that for the sake of published images.

    Formula: ``x_s = D + (s/t)(x - D) + w_1 (D_u - D) + w_2 (D_v - D)`` with weights that integrate the parabola through
        D at t and the two noise levels before; order 3, 1 NFE a step
    Paper: Lu et al. 2022, arXiv 2211.01095.
    Use: with about 20 NFE or more.
    """
    return Multistep(order=3, past=2) if corrected else Multistep(order=2, past=2, rule=uncorrected)


VARIANTS: dict[str, Rule] = {"bh1": bh1, "bh2": bh2}


def unipc(
    *,
    order: Annotated[
        int, Option("p, how many denoised images the prediction uses", Check(lambda p: p in (1, 2, 3), "1, 2 or 3"))
    ] = 3,
    variant: Annotated[str, Option("B(h): h (bh1) or 1 - e^-h (bh2)", choices=tuple(VARIANTS))] = "bh2",
) -> Solver:
    """UniPC-p: a prediction of order p = ``order``, corrected with the next denoised image to order p + 1.

    Formula: ``x_s = D + (s/t)(x - D) + sum_k w_k (D_k - D)`` over the p - 1 noise levels before, taken again with that
        at s among them once its D is known; order p + 1, 1 NFE a step
    Paper: Zhao et al. 2023, arXiv 2302.04867.
    Use: with about 20 NFE or more.
    """
    return Multistep(order + 1, past=order - 1, corrects=True, rule=VARIANTS[variant])
