"""Whole ways from noise to images: the levels they visit, what they cost, and where they begin.

A walk is called with a model, a start, the noise on the way and labels, and yields images in the coordinates of the
model, better and better.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from cmtool.core.denoiser import Denoise, broadcast_like
from cmtool.core.noise import Noise, SlerpNoise
from cmtool.core.process import Process
from cmtool.core.sampling.loops import clip_denoised, initial_noise, multistep, probability_flow
from cmtool.core.sampling.predictor_corrector import annealed_langevin, predictor_corrector
from cmtool.core.sampling.sde import Stay, Update, native_initial_noise
from cmtool.core.solvers import Solver

__all__ = ["AnnealedLangevinSampler", "MultistepSampler", "ODESampler", "ReverseSDESampler", "Sampler"]


class Sampler(Protocol):
    """A way from noise to images."""

    @property
    def sigmas(self) -> Tensor:
        """The noise levels that are visited, [n], descending."""
        ...

    @property
    def nfe(self) -> int | None:
        """Evaluations of the network for each image; None where the walk decides as it goes."""
        ...

    def begin(self, noise: Noise | SlerpNoise, shape: tuple[int, ...]) -> Tensor:
        """Where it starts, [B, *shape]."""
        ...

    def __call__(
        self, model: Denoise, x: Tensor, noise: Noise | SlerpNoise, labels: Tensor | None
    ) -> Iterator[Tensor]: ...


@dataclass(frozen=True)
class ODESampler:
    """Along the probability flow of a score model; the last of ``sigmas`` is 0, and the step there is the denoiser."""

    sigmas: Tensor
    solver: Solver

    @property
    def nfe(self) -> int | None:
        each = self.solver.nfe_per_step
        return None if each is None else (len(self.sigmas) - 2) * each + 1

    def begin(self, noise: Noise | SlerpNoise, shape: tuple[int, ...]) -> Tensor:
        return initial_noise(noise, shape, self.sigmas[0])

    def __call__(self, model: Denoise, x: Tensor, noise: Noise | SlerpNoise, labels: Tensor | None) -> Iterator[Tensor]:
        return probability_flow(model, x, self.sigmas, self.solver, labels, noise)


@dataclass(frozen=True)
class MultistepSampler:
    """From level to level by a consistency model, with new noise before every jump but the first.

    ``floor`` is the level that the model's own images are taken to have: new noise is ``sqrt(sigma^2 - floor^2) z``.
    With ``clip`` every image is clipped to [-1, 1].
    """

    sigmas: Tensor
    floor: float = 0.0
    clip: bool = False

    @property
    def nfe(self) -> int:
        return len(self.sigmas)

    def begin(self, noise: Noise | SlerpNoise, shape: tuple[int, ...]) -> Tensor:
        return initial_noise(noise, shape, self.sigmas[0])

    def __call__(self, model: Denoise, x: Tensor, noise: Noise | SlerpNoise, labels: Tensor | None) -> Iterator[Tensor]:
        model = clip_denoised(model) if self.clip else model
        return multistep(model, x, self.sigmas, noise, labels, sigma_min=self.floor)


@dataclass(frozen=True)
class ReverseSDESampler:
    """Down the reverse-time equation of ``process`` through its native ``times`` [n + 1]."""

    process: Process
    times: Tensor
    predictor: Update
    corrector: Update | None = None

    @property
    def sigmas(self) -> Tensor:
        return self.process.level(self.times)

    @property
    def nfe(self) -> int:
        predictions = 0 if isinstance(self.predictor, Stay) else 1
        return (len(self.times) - 1) * (predictions + getattr(self.corrector, "steps", 0))

    def begin(self, noise: Noise | SlerpNoise, shape: tuple[int, ...]) -> Tensor:
        return native_initial_noise(noise, shape, self.process, self.times[0])

    def __call__(self, model: Denoise, x: Tensor, noise: Noise | SlerpNoise, labels: Tensor | None) -> Iterator[Tensor]:
        walk = predictor_corrector(model, x, self.times, self.process, noise, self.predictor, self.corrector, labels)
        for here, t in zip(walk, self.times[1:], strict=True):
            yield here / broadcast_like(self.process.scale(t), here)


@dataclass(frozen=True)
class AnnealedLangevinSampler:
    """``steps`` Langevin steps of size ``rate sigma^2`` at each level; the denoiser takes off what noise is left."""

    sigmas: Tensor
    rate: float
    steps: int

    @property
    def nfe(self) -> int:
        return len(self.sigmas) * self.steps + 1

    def begin(self, noise: Noise | SlerpNoise, shape: tuple[int, ...]) -> Tensor:
        return initial_noise(noise, shape, self.sigmas[0])

    def __call__(self, model: Denoise, x: Tensor, noise: Noise | SlerpNoise, labels: Tensor | None) -> Iterator[Tensor]:
        for here in annealed_langevin(model, x, self.sigmas, noise, self.rate, self.steps, labels):
            yield (x := here)
        yield model(x, self.sigmas[-1].expand(len(x)), labels)
