"""Annealed Langevin dynamics, the sampler of NCSN, and its step, which correctors take too."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from cmtool.core.denoiser import Denoise, broadcast_like
from cmtool.core.noise import NoiseSource
from cmtool.core.process import EDM, Process
from cmtool.core.sampling.loops import initial_noise
from cmtool.core.sampling.samplers import SamplerFactory
from cmtool.core.sampling.sde import ReverseSDE
from cmtool.options.plugin_option import Option
from cmtool.options.types import at_least, positive

__all__ = ["AnnealedLangevin", "AnnealedLangevinSampler", "annealed_langevin", "langevin", "langevin_step"]


def langevin_step(x: Tensor, score: Tensor, eta: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """``x + eta score + sqrt(2 eta) z`` with and without its last term; ``eta`` is [] or [B]."""
    mean = x + broadcast_like(eta, x) * score
    return mean + broadcast_like((2 * eta).sqrt(), x) * z, mean


def annealed_langevin(
    model: Denoise,
    x: Tensor,
    sigmas: Tensor,
    noise: NoiseSource,
    rate: float = 0.2,
    steps: int = 100,
    labels: Tensor | None = None,
) -> Iterator[Tensor]:
    """``steps`` Langevin steps of size ``eta = rate sigma^2`` at each noise level; yields x [B, ...] after each level.

    ``x`` begins anywhere; ``sigmas`` descend. NCSN writes ``eta = epsilon sigma_i^2 / sigma_L^2`` with epsilon 2e-5 and
    ``sigma_L = 0.01``, which is rate 0.2, and its code has the step above, twice the size of its paper's.
    Source: Song and Ermon 2019, arXiv 1907.05600, algorithm 1.
    """
    sde = ReverseSDE.of(model, EDM(), noise, labels)
    for sigma in sigmas:
        for _ in range(steps):
            x, _ = langevin_step(x, sde.score(x, sigma), rate * sigma**2, sde.draw(x))
        yield x


@dataclass(frozen=True)
class AnnealedLangevinSampler:
    """``steps`` Langevin steps of size ``rate sigma^2`` at each noise level, and the denoiser at the end."""

    sigmas: Tensor
    rate: float
    steps: int

    @property
    def nfe(self) -> int:
        return len(self.sigmas) * self.steps + 1

    def begin(self, noise: NoiseSource, shape: tuple[int, ...]) -> Tensor:
        return initial_noise(noise, shape, self.sigmas[0])

    def __call__(self, model: Denoise, x: Tensor, noise: NoiseSource, labels: Tensor | None) -> Iterator[Tensor]:
        steps = annealed_langevin(model, x, self.sigmas, noise, self.rate, self.steps, labels)
        for x in steps:
            yield x
        yield model(x, self.sigmas[-1].expand(len(x)), labels)


@dataclass(frozen=True)
class AnnealedLangevin:
    """Annealed Langevin dynamics that waits for its noise levels; ``x = x_0 + sigma z`` whatever the process."""

    rate: float
    each: int
    default_steps: int = 10

    def build_sampler(self, process: Process, times: Tensor) -> AnnealedLangevinSampler:
        return AnnealedLangevinSampler(process.sigma(times), self.rate, self.each)


def langevin(
    *,
    rate: Annotated[float, Option("size of a step as part of sigma^2", positive())] = 0.2,
    each: Annotated[int, Option("Langevin steps at each noise level", at_least(1, 10**6))] = 100,
) -> SamplerFactory:
    """Annealed Langevin dynamics: ``each`` Langevin steps at every noise level, and the denoiser at the end.

    Formula: ``x <- x + rate sigma^2 score + sqrt(2 rate) sigma z``; ``each`` NFE a noise level
    Paper: Song and Ermon 2019, arXiv 1907.05600, algorithm 1.
    Use: to reproduce NCSN; it needs about a thousand NFE.
    """
    return AnnealedLangevin(rate, each)
