"""The reverse-time SDE in the native coordinates ``x_t`` of a process, and the predictors that take a step of it.

The probability flow and the reverse equation are two members of one family with the same marginals,
``dx = [f x - (1 + lambda^2)/2 g^2 score] dt + lambda g dw``: lambda 0 is the ordinary, 1 the reverse equation
(Song et al. 2021, arXiv 2011.13456, eq. 6 and 13). The correctors are in ``predictor_corrector.py``.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Protocol

import torch
from torch import Tensor

from cmtool.core.denoiser import Denoise, broadcast_like
from cmtool.core.noise import STEP, NoiseSource
from cmtool.core.process import Process
from cmtool.core.solvers.solver import Field

__all__ = [
    "Ancestral",
    "EulerMaruyama",
    "NoPrediction",
    "ReverseDiffusion",
    "ReverseSDE",
    "Score",
    "Update",
    "denoiser_function",
    "native_initial_noise",
    "native_ode_field",
    "reverse_drift",
    "score_function",
]

Score = Callable[[Tensor, Tensor], Tensor]  # (x_t [B, ...], t [] or [B]) -> grad log p_t(x_t) [B, ...]


def score_function(model: Denoise, process: Process, labels: Tensor | None = None) -> Score:
    """``(s D(x_t / s, sigma) - x_t) / (s sigma)^2``, the score in native coordinates (Karras et al. 2022, eq. 3)."""

    def score(x: Tensor, t: Tensor) -> Tensor:
        s, sigma = process.scale(t), process.sigma(t)
        scaled = x / broadcast_like(s, x)
        return (model(scaled, sigma.expand(len(x)), labels) - scaled) / broadcast_like(s * sigma**2, x)

    return score


def denoiser_function(score: Score, process: Process) -> Denoise:
    """For a network that is a score, the inverse of ``score_function``.

    ``D(x, sigma) = x + s sigma^2 score(s x, t)``.
    """

    def model(x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        t = process.time(sigma)
        s = process.scale(t)
        return x + broadcast_like(s * sigma**2, x) * score(broadcast_like(s, x) * x, t)

    return model


def reverse_drift(process: Process, score: Tensor, x: Tensor, t: Tensor, noise: float = 1.0) -> Tensor:
    """``f x - (1 + lambda^2)/2 g^2 score``, [B, ...]; ``noise`` is lambda, ``t`` is [] or [B]."""
    return (
        broadcast_like(process.drift(t), x) * x
        - (1 + noise**2) / 2 * broadcast_like(process.diffusion(t) ** 2, x) * score
    )


def native_ode_field(model: Denoise, process: Process, labels: Tensor | None = None) -> Field:
    """The probability-flow ODE in native time: ``dx_t/dt = f x_t - g^2 score / 2`` (Song et al. 2021, eq. 13)."""
    score = score_function(model, process, labels)
    return lambda x, t: reverse_drift(process, score(x, t), x, t, noise=0.0)


def native_initial_noise(noise: NoiseSource, shape: tuple[int, ...], process: Process, t: Tensor) -> Tensor:
    """A draw of the prior of the process at its last time, [B, *shape]."""
    z = noise.normal(shape)
    return broadcast_like(process.prior(t), z) * z


@dataclass(frozen=True)
class ReverseSDE:
    """What an update needs to know: the process, the score, and the noise, a stream of its own for every draw."""

    process: Process
    score: Score
    noise: NoiseSource
    streams: Iterator[int] = field(default_factory=lambda: count(STEP))

    @classmethod
    def of(cls, model: Denoise, process: Process, noise: NoiseSource, labels: Tensor | None = None) -> "ReverseSDE":
        """The reverse equation of a denoiser."""
        return cls(process, score_function(model, process, labels), noise)

    def draw(self, x: Tensor) -> Tensor:
        """N(0, 1), shaped and typed as ``x``; draw k is stream STEP + k."""
        return self.noise.normal(x.shape[1:], next(self.streams)).to(x)


class Update(Protocol):
    """``update(sde, x, t, s)`` takes x [B, ...] from time t towards s < t; times are [].

    Returns x with its noise and without: a draw, and its mean. A predictor arrives at s, a corrector stays at t.
    """

    @property
    def nfe(self) -> int:
        """NFE of an update."""
        ...

    def __call__(self, sde: ReverseSDE, x: Tensor, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]: ...


@dataclass(frozen=True)
class NoPrediction:
    """No predictor: x is kept from time to time, for the corrector alone."""

    @property
    def nfe(self) -> int:
        return 0

    def __call__(self, sde: ReverseSDE, x: Tensor, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


class Predictor:
    """What the predictors below share: 1 NFE a step."""

    @property
    def nfe(self) -> int:
        return 1


@dataclass(frozen=True)
class EulerMaruyama(Predictor):
    """``x + [f x - (1 + lambda^2)/2 g^2 score] dt + lambda g sqrt|dt| z``; ``noise`` is lambda.

    Source: Song et al. 2021, arXiv 2011.13456, eq. 6.
    """

    noise: float = 1.0

    def __call__(self, sde: ReverseSDE, x: Tensor, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        mean = x + broadcast_like(s - t, x) * reverse_drift(sde.process, sde.score(x, t), x, t, self.noise)
        deviation = self.noise * sde.process.diffusion(t) * (t - s).sqrt()
        return mean + broadcast_like(deviation, x) * sde.draw(x), mean


@dataclass(frozen=True)
class ReverseDiffusion(Predictor):
    """The forward step ``x_t = a x_s + b z`` reversed: ``(2 - a) x + (1 + lambda^2)/2 b^2 score + lambda b z``.

    Source: Song et al. 2021, arXiv 2011.13456, appendix E; lambda 0 is its discretisation of the probability flow.
    """

    noise: float = 1.0

    def __call__(self, sde: ReverseSDE, x: Tensor, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        a, b = sde.process.transition(t, s)
        mean = broadcast_like(2 - a, x) * x + (1 + self.noise**2) / 2 * broadcast_like(b**2, x) * sde.score(x, t)
        return mean + broadcast_like(self.noise * b, x) * sde.draw(x), mean


@dataclass(frozen=True)
class Ancestral(Predictor):
    """``(x + b^2 score)/a + std z``, the mean of ``x_s`` given ``x_t``; the last step to noise level 0 is the denoiser.

    ``std`` is that of ``x_s`` given ``x_t`` and the image, ``b (s sigma)_s / (s sigma)_t``, or if ``wide`` all of
    ``b``: the lower and upper bound for data of unit variance (Ho et al. 2020, arXiv 2006.11239, section 3.2).
    In the continuous-time samplers of Song et al. 2021 (appendix F) SMLD is the narrow one, DDPM the wide one.
    """

    wide: bool = False

    def __call__(self, sde: ReverseSDE, x: Tensor, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        a, b = sde.process.transition(t, s)
        mean = (x + broadcast_like(b**2, x) * sde.score(x, t)) / broadcast_like(a, x)
        ratio = torch.ones_like(t) if self.wide else sde.process.deviation(s) / sde.process.deviation(t)
        return mean + broadcast_like(b * ratio, x) * sde.draw(x), mean
