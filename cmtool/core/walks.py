"""Whole ways from noise to images: the levels they visit, what they cost, and where they begin.

A walk is called with a model, a start, the noise on the way and labels, and yields images in the coordinates of the
model, better and better.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from cmtool.core.denoiser import Denoise, like
from cmtool.core.langevin import annealed_langevin
from cmtool.core.noise import Blend, Noise
from cmtool.core.predictor_corrector import predictor_corrector
from cmtool.core.process import Process
from cmtool.core.samplers import clipped, multistep, probability_flow, start
from cmtool.core.sde import Stay, Update, native_start
from cmtool.core.solvers import Solver

__all__ = ["AlongODE", "Annealed", "Jumps", "Reverse", "Walk"]


class Walk(Protocol):
    """A way from noise to images."""

    @property
    def levels(self) -> Tensor:
        """The noise levels that are visited, [n], descending."""
        ...

    @property
    def evaluations(self) -> int | None:
        """Evaluations of the network for each image; None where the walk decides as it goes."""
        ...

    def begin(self, noise: Noise | Blend, shape: tuple[int, ...]) -> Tensor:
        """Where it starts, [B, *shape]."""
        ...

    def __call__(self, model: Denoise, x: Tensor, noise: Noise | Blend, labels: Tensor | None) -> Iterator[Tensor]: ...


@dataclass(frozen=True)
class AlongODE:
    """Along the probability flow of a score model; the last of ``levels`` is 0, and the step there is the denoiser."""

    levels: Tensor
    solver: Solver

    @property
    def evaluations(self) -> int | None:
        each = self.solver.evaluations
        return None if each is None else (len(self.levels) - 2) * each + 1

    def begin(self, noise: Noise | Blend, shape: tuple[int, ...]) -> Tensor:
        return start(noise, shape, self.levels[0])

    def __call__(self, model: Denoise, x: Tensor, noise: Noise | Blend, labels: Tensor | None) -> Iterator[Tensor]:
        return probability_flow(model, x, self.levels, self.solver, labels, noise)


@dataclass(frozen=True)
class Jumps:
    """From level to level by a consistency model, with new noise before every jump but the first.

    ``floor`` is the level that the model's own images are taken to have: new noise is ``sqrt(sigma^2 - floor^2) z``.
    With ``clip`` every image is clipped to [-1, 1].
    """

    levels: Tensor
    floor: float = 0.0
    clip: bool = False

    @property
    def evaluations(self) -> int:
        return len(self.levels)

    def begin(self, noise: Noise | Blend, shape: tuple[int, ...]) -> Tensor:
        return start(noise, shape, self.levels[0])

    def __call__(self, model: Denoise, x: Tensor, noise: Noise | Blend, labels: Tensor | None) -> Iterator[Tensor]:
        model = clipped(model) if self.clip else model
        return multistep(model, x, self.levels, noise, labels, sigma_min=self.floor)


@dataclass(frozen=True)
class Reverse:
    """Down the reverse-time equation of ``process`` through its native ``times`` [n + 1]."""

    process: Process
    times: Tensor
    predictor: Update
    corrector: Update | None = None

    @property
    def levels(self) -> Tensor:
        return self.process.level(self.times)

    @property
    def evaluations(self) -> int:
        predictions = 0 if isinstance(self.predictor, Stay) else 1
        return (len(self.times) - 1) * (predictions + getattr(self.corrector, "steps", 0))

    def begin(self, noise: Noise | Blend, shape: tuple[int, ...]) -> Tensor:
        return native_start(noise, shape, self.process, self.times[0])

    def __call__(self, model: Denoise, x: Tensor, noise: Noise | Blend, labels: Tensor | None) -> Iterator[Tensor]:
        walk = predictor_corrector(model, x, self.times, self.process, noise, self.predictor, self.corrector, labels)
        for here, t in zip(walk, self.times[1:], strict=True):
            yield here / like(self.process.scale(t), here)


@dataclass(frozen=True)
class Annealed:
    """``steps`` Langevin steps of size ``rate sigma^2`` at each level; the denoiser takes off what noise is left."""

    levels: Tensor
    rate: float
    steps: int

    @property
    def evaluations(self) -> int:
        return len(self.levels) * self.steps + 1

    def begin(self, noise: Noise | Blend, shape: tuple[int, ...]) -> Tensor:
        return start(noise, shape, self.levels[0])

    def __call__(self, model: Denoise, x: Tensor, noise: Noise | Blend, labels: Tensor | None) -> Iterator[Tensor]:
        for here in annealed_langevin(model, x, self.levels, noise, self.rate, self.steps, labels):
            yield (x := here)
        yield model(x, self.levels[-1].expand(len(x)), labels)
