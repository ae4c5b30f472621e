"""From noise to images: along the probability-flow ODE, or by the steps of a consistency model."""

from collections.abc import Callable, Iterator
from itertools import pairwise

import torch
from torch import Tensor

from cmtool.core.denoiser import Denoise, broadcast_like, ode_field
from cmtool.core.noise import START, STEP, NoiseSource
from cmtool.core.solvers.solver import NO_CHURN, Solver

__all__ = ["CountNFE", "clip_denoised", "initial_noise", "last", "multistep", "probability_flow"]


class CountNFE:
    """A denoiser that counts its NFE, of which a call is one, or as many as ``cost(sigma)`` says."""

    def __init__(self, model: Callable[..., Tensor], cost: Callable[[Tensor], int] = lambda sigma: 1):
        self.model, self.cost, self.calls = model, cost, 0

    def __call__(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None, *conditioning: Tensor) -> Tensor:
        self.calls += self.cost(sigma)
        return self.model(x, sigma, labels, *conditioning)


def clip_denoised(model: Denoise) -> Denoise:
    """The same denoiser with its image clipped to [-1, 1], as OpenAI samples."""
    return lambda x, sigma, labels=None: model(x, sigma, labels).clamp(-1, 1)


def initial_noise(noise: NoiseSource, shape: tuple[int, ...], sigma: Tensor) -> Tensor:
    """``sigma z``, [B, *shape]: where sampling begins; ``sigma`` is [] or [B]."""
    z = noise.normal(shape, START)
    return broadcast_like(sigma, z) * z


def probability_flow(
    model: Denoise,
    x: Tensor,
    sigmas: Tensor,
    solver: Solver,
    labels: Tensor | None = None,
    noise: NoiseSource | None = None,
    to_zero: Solver | None = None,
) -> Iterator[Tensor]:
    """Solve the ODE from x [B, ...] at ``sigmas[0]``, up or down, yielding x at each further noise level.

    A last noise level of 0 is reached by Euler, whose step to 0 is the denoiser itself, or by the solver ``to_zero``.
    The solver's churn takes ``noise`` before step k (stream STEP + 2k) or after it (STEP + 2k + 1); without ``noise``
    there is none. Source: Karras et al. 2022, arXiv 2206.00364, algorithms 1 and 2.
    """
    field, step = ode_field(model, labels), solver.begin()
    churn, n = NO_CHURN if noise is None else solver.churn, len(sigmas) - 1
    for k, (t, s) in enumerate(pairwise(sigmas)):
        high = churn.raised(t, n)
        x = _add_noise(x, churn.scale * (high**2 - t**2).clamp(min=0).sqrt(), noise, STEP + 2 * k)
        down, up = churn.split(high, s)
        if s > 0:
            x = step(field, x, high, down)
        else:
            x = to_zero(field, x, high, s) if to_zero else model(x, high.expand(len(x)), labels)
        x = _add_noise(x, up, noise, STEP + 2 * k + 1)
        yield x


def _add_noise(x: Tensor, amount: Tensor, noise: NoiseSource | None, stream: int) -> Tensor:
    """``x + amount z``; nothing is drawn where the amount is 0."""
    if noise is not None and amount > 0:
        return x + broadcast_like(amount, x) * noise.normal(x.shape[1:], stream).to(x)
    return x


def multistep(
    model: Denoise,
    x: Tensor,
    sigmas: Tensor,
    noise: NoiseSource,
    labels: Tensor | None = None,
    impose: Callable[[Tensor], Tensor] | None = None,
    sigma_min: float = 0.0,
) -> Iterator[Tensor]:
    """Multistep consistency sampling: denoise, add noise of the next noise level, denoise again; yields each image.

        x <- x + sqrt(sigma_k^2 - sigma_min^2) z_k   (k >= 1)
        x <- f(x, sigma_k)
        x <- impose(x)

    ``x`` [B, ...] is at ``sigmas[0]``; ``sigmas`` [K] descend; ``impose`` puts back what is known when editing.
    ``sigma_min`` is the noise level of the model's own output: 0.002 in the paper, 0 in ECT. z_k is stream STEP + k.
    Source: Song et al. 2023, arXiv 2303.01469, algorithms 1 and 4.
    """
    for k, sigma in enumerate(sigmas):
        if k:
            x = _add_noise(x, (sigma**2 - sigma_min**2).clamp(min=0).sqrt(), noise, STEP + k)
        x = model(x, sigma.expand(len(x)), labels)
        if impose:
            x = impose(x)
        yield x


@torch.no_grad()
def last(steps: Iterator[Tensor]) -> Tensor:
    """The last of what a sampler yields, without gradients."""
    *_, x = steps
    return x
