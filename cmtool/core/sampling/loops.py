"""From noise to images: along the probability-flow ODE, or by jumps of a consistency model."""

from collections.abc import Callable, Iterator
from itertools import pairwise

import torch
from torch import Tensor

from cmtool.core.denoiser import Denoise, broadcast_like
from cmtool.core.noise import START, STEP, Noise, SlerpNoise
from cmtool.core.solvers import Field, Solver, start_solver
from cmtool.core.solvers.solver import NO_CHURN

__all__ = ["CountNFE", "clip_denoised", "initial_noise", "last", "multistep", "ode_field", "probability_flow"]


class CountNFE:
    """A denoiser that counts its network evaluations, of which a call is one, or as many as ``cost(sigma)`` says."""

    def __init__(self, model: Callable[..., Tensor], cost: Callable[[Tensor], int] = lambda sigma: 1):
        self.model, self.cost, self.calls = model, cost, 0

    def __call__(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None, *told: Tensor) -> Tensor:
        self.calls += self.cost(sigma)
        return self.model(x, sigma, labels, *told)


def clip_denoised(model: Denoise) -> Denoise:
    """The same denoiser with its image clipped to [-1, 1], as OpenAI samples."""
    return lambda x, sigma, labels=None: model(x, sigma, labels).clamp(-1, 1)


def initial_noise(noise: Noise | SlerpNoise, shape: tuple[int, ...], sigma: Tensor) -> Tensor:
    """``sigma z``, [B, *shape]: where every walk from noise begins."""
    z = noise.normal(shape, START)
    return broadcast_like(sigma, z) * z


def ode_field(model: Denoise, labels: Tensor | None = None) -> Field:
    """The probability-flow ODE: ``dx/dsigma = (x - D(x, sigma)) / sigma`` (Karras et al. 2022, eq. 1 and 3)."""

    def field(x: Tensor, sigma: Tensor) -> Tensor:
        return (x - model(x, sigma.expand(len(x)), labels)) / broadcast_like(sigma, x)

    return field


def probability_flow(
    model: Denoise,
    x: Tensor,
    levels: Tensor,
    solver: Solver,
    labels: Tensor | None = None,
    noise: Noise | SlerpNoise | None = None,
    to_zero: Solver | None = None,
) -> Iterator[Tensor]:
    """Walk x from ``levels[0]`` along the ODE, up or down, yielding x at each further level.

    A last level of 0 is reached by Euler, whose step to 0 is the denoiser itself, or by the solver ``to_zero``. A
    solver that stirs takes in ``noise`` before each step or after it; without noise its walk is the ODE's.
    Source: Karras et al. 2022, arXiv 2206.00364, algorithms 1 and 2.
    """
    field, step = ode_field(model, labels), start_solver(solver)
    stir, n = getattr(solver, "churn_options", NO_CHURN) if noise is not None else NO_CHURN, len(levels) - 1
    for k, (t, s) in enumerate(pairwise(levels)):
        high = stir.raised(t, n)
        x = _add_noise(x, stir.scale * (high**2 - t**2).clamp(min=0).sqrt(), noise, STEP + 2 * k)
        down, up = stir.split(high, s)
        if s > 0:
            x = step(field, x, high, down)
        else:
            x = to_zero(field, x, high, s) if to_zero else model(x, high.expand(len(x)), labels)
        x = _add_noise(x, up, noise, STEP + 2 * k + 1)
        yield x


def _add_noise(x: Tensor, amount: Tensor, noise: Noise | SlerpNoise | None, stream: int) -> Tensor:
    """``x + amount z``."""
    return (
        x + broadcast_like(amount, x) * noise.normal(x.shape[1:], stream).to(x)
        if noise is not None and amount > 0
        else x
    )


def multistep(
    model: Denoise,
    x: Tensor,
    levels: Tensor,
    noise: Noise | SlerpNoise,
    labels: Tensor | None = None,
    impose: Callable[[Tensor], Tensor] | None = None,
    sigma_min: float = 0.0,
) -> Iterator[Tensor]:
    """Jump to the image, add noise of the next level, jump again; yields the image after each jump.

        x <- x + sqrt(sigma_k^2 - sigma_min^2) z_k   (k >= 1)
        x <- f(x, sigma_k)
        x <- impose(x)

    ``x`` [B, ...] is at ``levels[0]``; ``levels`` [K] descend; ``impose`` puts back what is known when editing.
    ``sigma_min`` is the level of the model's own output: 0.002 in the paper, 0 in ECT.
    Source: Song et al. 2023, arXiv 2303.01469, algorithms 1 and 4.
    """
    for k, sigma in enumerate(levels):
        if k:
            x = _add_noise(x, (sigma**2 - sigma_min**2).clamp(min=0).sqrt(), noise, STEP + k)
        x = model(x, sigma.expand(len(x)), labels)
        if impose:
            x = impose(x)
        yield x


@torch.no_grad()
def last(walk: Iterator[Tensor]) -> Tensor:
    """The end of a walk, without gradients."""
    *_, x = walk
    return x
