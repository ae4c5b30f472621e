"""What a sampler is, and those of the ODE and of consistency models: noise levels, cost, start and steps.

The samplers of the reverse-time SDE and Langevin dynamics are in the files beside this one.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from cmtool.core.denoiser import Denoise
from cmtool.core.noise import NoiseSource
from cmtool.core.process import Process
from cmtool.core.sampling.loops import clip_denoised, initial_noise, multistep, probability_flow
from cmtool.core.solvers.solver import Solver

__all__ = ["MultistepSampler", "ODESampler", "Sampler", "SamplerFactory"]


class Sampler(Protocol):
    """A sampler: ``sampler(model, sampler.begin(noise, shape), noise, labels)`` yields images.

    They are [B, *shape] in the coordinates of the model, better and better.
    """

    @property
    def sigmas(self) -> Tensor:
        """Its noise levels, [n], descending."""
        ...

    @property
    def nfe(self) -> int | None:
        """NFE of each image; None of adaptive samplers."""
        ...

    def begin(self, noise: NoiseSource, shape: tuple[int, ...]) -> Tensor:
        """Where it starts, [B, *shape]."""
        ...

    def __call__(self, model: Denoise, x: Tensor, noise: NoiseSource, labels: Tensor | None) -> Iterator[Tensor]: ...


class SamplerFactory(Protocol):
    """What an entry point of ``cmtool.samplers`` returns: a sampler that waits for a process and its times."""

    @property
    def default_steps(self) -> int:
        """The number of steps when none is given."""
        ...

    def build_sampler(self, process: Process, times: Tensor) -> Sampler:
        """The sampler that goes through ``times`` [n + 1] of ``process``, descending."""
        ...


@dataclass(frozen=True)
class ODESampler:
    """An ODE solver along a score model's probability flow; the last of ``sigmas`` is 0, reached by the denoiser.

    With ``clip`` every denoised image is clipped to [-1, 1].
    """

    sigmas: Tensor
    solver: Solver
    clip: bool = False

    @property
    def nfe(self) -> int | None:
        each = self.solver.nfe_per_step
        return None if each is None else (len(self.sigmas) - 2) * each + 1

    def begin(self, noise: NoiseSource, shape: tuple[int, ...]) -> Tensor:
        return initial_noise(noise, shape, self.sigmas[0])

    def __call__(self, model: Denoise, x: Tensor, noise: NoiseSource, labels: Tensor | None) -> Iterator[Tensor]:
        model = clip_denoised(model) if self.clip else model
        return probability_flow(model, x, self.sigmas, self.solver, labels, noise)


@dataclass(frozen=True)
class MultistepSampler:
    """Multistep consistency sampling, with new noise before every step but the first.

    ``floor`` is the noise level that the model's own images are taken to have: new noise is
    ``sqrt(sigma^2 - floor^2) z``. With ``clip`` every image is clipped to [-1, 1].
    """

    sigmas: Tensor
    floor: float = 0.0
    clip: bool = False

    @property
    def nfe(self) -> int:
        return len(self.sigmas)

    def begin(self, noise: NoiseSource, shape: tuple[int, ...]) -> Tensor:
        return initial_noise(noise, shape, self.sigmas[0])

    def __call__(self, model: Denoise, x: Tensor, noise: NoiseSource, labels: Tensor | None) -> Iterator[Tensor]:
        model = clip_denoised(model) if self.clip else model
        return multistep(model, x, self.sigmas, noise, labels, sigma_min=self.floor)
