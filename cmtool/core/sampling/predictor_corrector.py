"""The samplers of the reverse-time SDE: a predictor goes from time to time, a corrector takes Langevin steps at each.

Each entry point of ``cmtool.samplers`` below is a pair of them, which waits for a process and its times.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

from torch import Tensor

from cmtool.core.denoiser import Denoise, broadcast_like
from cmtool.core.noise import NoiseSource
from cmtool.core.process import Process
from cmtool.core.sampling.langevin import langevin_step
from cmtool.core.sampling.samplers import SamplerFactory
from cmtool.core.sampling.sde import (
    Ancestral,
    EulerMaruyama,
    NoPrediction,
    ReverseDiffusion,
    ReverseSDE,
    Update,
    native_initial_noise,
)
from cmtool.errors import UsageError
from cmtool.options.plugin_option import Option
from cmtool.options.types import at_least, positive

__all__ = [
    "ALD",
    "Langevin",
    "PredictorCorrector",
    "ReverseSDESampler",
    "ancestral",
    "euler_maruyama",
    "predictor_corrector",
    "reverse_diffusion",
    "solve_reverse_sde",
]


def _alpha(sde: ReverseSDE, t: Tensor, s: Tensor) -> Tensor:
    """``a^2`` of the step from s to t, the ``alpha_i`` of a variance-preserving chain; 1 where nothing is scaled."""
    return sde.process.transition(t, s)[0] ** 2


@dataclass(frozen=True)
class Langevin:
    """A corrector of Langevin steps with a set ratio of signal to noise: ``eta = 2 alpha (snr |z|/|score|)^2``.

    Norms are of each image, so that no image depends on those beside it; with ``pooled`` they are means over the
    batch, as published. For points of few dimensions, whose score may be small by chance, take ``ALD``.
    Source: Song et al. 2021, arXiv 2011.13456, algorithms 4 and 5.
    """

    snr: float = 0.16
    steps: int = 1
    pooled: bool = False

    @property
    def nfe(self) -> int:
        return self.steps

    def __call__(self, sde: ReverseSDE, x: Tensor, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        mean = x
        for _ in range(self.steps):
            score, z = sde.score(x, t), sde.draw(x)
            ratio = self._norm(z) / self._norm(score)
            x, mean = langevin_step(x, score, 2 * _alpha(sde, t, s) * (self.snr * ratio) ** 2, z)
        return x, mean

    def _norm(self, x: Tensor) -> Tensor:
        norms = x.flatten(1).norm(dim=1)
        return norms.mean() if self.pooled else norms


@dataclass(frozen=True)
class ALD:
    """A corrector of annealed Langevin steps, ``eta = 2 alpha (snr s sigma)^2``: the step of NCSN between predictions.

    Source: Song et al. 2021, arXiv 2011.13456, and its code.
    """

    snr: float = 0.16
    steps: int = 1

    @property
    def nfe(self) -> int:
        return self.steps

    def __call__(self, sde: ReverseSDE, x: Tensor, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        eta, mean = 2 * _alpha(sde, t, s) * (self.snr * sde.process.deviation(t)) ** 2, x
        for _ in range(self.steps):
            x, mean = langevin_step(x, sde.score(x, t), eta, sde.draw(x))
        return x, mean


def solve_reverse_sde(
    sde: ReverseSDE,
    x: Tensor,
    times: Tensor,
    predictor: Update,
    corrector: Update | None = None,
    denoise: bool = True,
) -> Iterator[Tensor]:
    """Sample from ``x_t`` [B, ...] at the native ``times`` [n + 1], yielding it after each of the n steps.

    At each time the corrector comes first, then the predictor; with ``denoise`` the last step adds no noise. Divide
    what is yielded by ``process.scale`` of its time for the image in the coordinates of the model. Draws are streams
    STEP, STEP + 1, ..., in the order of the updates. ``n (1 + corrector steps)`` NFE.
    Source: Song et al. 2021, arXiv 2011.13456, algorithm 1.
    """
    for k, (t, s) in enumerate(pairwise(times)):
        if corrector:
            x, _ = corrector(sde, x, t, s)
        x, mean = predictor(sde, x, t, s)
        yield mean if denoise and k == len(times) - 2 else x


@dataclass(frozen=True)
class ReverseSDESampler:
    """A sampler of the reverse-time SDE of ``process`` at its native ``times`` [n + 1]."""

    process: Process
    times: Tensor
    predictor: Update
    corrector: Update | None = None

    @property
    def sigmas(self) -> Tensor:
        return self.process.sigma(self.times)

    @property
    def nfe(self) -> int:
        return (len(self.times) - 1) * (self.predictor.nfe + (self.corrector.nfe if self.corrector else 0))

    def begin(self, noise: NoiseSource, shape: tuple[int, ...]) -> Tensor:
        return native_initial_noise(noise, shape, self.process, self.times[0])

    def __call__(self, model: Denoise, x: Tensor, noise: NoiseSource, labels: Tensor | None) -> Iterator[Tensor]:
        sde = ReverseSDE.of(model, self.process, noise, labels)
        steps = solve_reverse_sde(sde, x, self.times, self.predictor, self.corrector)
        for native, t in zip(steps, self.times[1:], strict=True):
            yield native / broadcast_like(self.process.scale(t), native)


@dataclass(frozen=True)
class PredictorCorrector:
    """A predictor and a corrector that wait for a process and its times."""

    predictor: Update
    corrector: Update | None = None
    default_steps: int = 100

    def build_sampler(self, process: Process, times: Tensor) -> ReverseSDESampler:
        return ReverseSDESampler(process, times, self.predictor, self.corrector)


# Another corrector is an ``Update`` with the fields snr and steps, and an entry: the option has its name as a choice.
CORRECTORS = {"langevin": Langevin, "ald": ALD}
PREDICTORS = ("reverse-diffusion", "euler-maruyama", "ancestral", "ancestral-wide", "none")

LambdaOption = Annotated[float, Option("lambda: 1 is the reverse-time SDE, 0 the probability-flow ODE", at_least(0))]
CorrectorOption = Annotated[
    str, Option("Langevin steps of a set signal-to-noise ratio, or of NCSN's size (ald)", choices=("none", *CORRECTORS))
]
SNROption = Annotated[float, Option("signal-to-noise ratio of a correction", positive())]
CorrectionsOption = Annotated[int, Option("corrections at each time", at_least(1, 10**6))]


def _corrector(name: str, snr: float, steps: int) -> Update | None:
    return None if name == "none" else CORRECTORS[name](snr, steps)


def euler_maruyama(
    *,
    noise: LambdaOption = 1.0,
    corrector: CorrectorOption = "none",
    snr: SNROption = 0.16,
    corrections: CorrectionsOption = 1,
) -> SamplerFactory:
    """Euler's method for the reverse-time SDE, with an optional corrector.

    Formula: ``x + [f x - (1 + lambda^2)/2 g^2 score] dt + lambda g sqrt|dt| z``; 1 NFE a step and 1 a correction
    Paper: Song et al. 2021, arXiv 2011.13456, eq. 6.
    Use: with 100 NFE or more, where noise between steps corrects some of the network's errors.
    """
    return PredictorCorrector(EulerMaruyama(noise), _corrector(corrector, snr, corrections))


def reverse_diffusion(
    *,
    noise: LambdaOption = 1.0,
    corrector: CorrectorOption = "none",
    snr: SNROption = 0.16,
    corrections: CorrectionsOption = 1,
) -> SamplerFactory:
    """The steps of the forward process reversed, with an optional corrector.

    Formula: ``(2 - a) x + (1 + lambda^2)/2 b^2 score + lambda b z`` for the step ``x_t = a x_s + b z``; 1 NFE a step
        and 1 a correction
    Paper: Song et al. 2021, arXiv 2011.13456, appendix E.
    Use: with 100 NFE or more, to reproduce Score-SDE.
    """
    return PredictorCorrector(ReverseDiffusion(noise), _corrector(corrector, snr, corrections))


def ancestral(
    *,
    wide: Annotated[
        bool, Option("all noise of the forward step, as DDPM; else that of the posterior, as SMLD")
    ] = False,
    corrector: CorrectorOption = "none",
    snr: SNROption = 0.16,
    corrections: CorrectionsOption = 1,
) -> SamplerFactory:
    """Ancestral sampling: SMLD's, or with ``wide`` noise DDPM's, with an optional corrector.

    Formula: ``(x + b^2 score)/a + std z`` for the step ``x_t = a x_s + b z``; 1 NFE a step and 1 a correction
    Paper: Song et al. 2021, arXiv 2011.13456, appendix F; Ho et al. 2020, arXiv 2006.11239, section 3.2.
    Use: with 100 NFE or more, to reproduce DDPM and SMLD.
    """
    return PredictorCorrector(Ancestral(wide), _corrector(corrector, snr, corrections))


def predictor_corrector(
    *,
    predictor: Annotated[
        str, Option("a predictor by name; none: the corrector alone", choices=PREDICTORS)
    ] = "reverse-diffusion",
    noise: Annotated[float, Option("lambda of reverse-diffusion and euler-maruyama", at_least(0))] = 1.0,
    corrector: CorrectorOption = "langevin",
    snr: SNROption = 0.16,
    corrections: CorrectionsOption = 1,
) -> SamplerFactory:
    """Predictions, each corrected by Langevin steps: the PC sampler.

    Formula: at each time ``corrections`` steps ``x + eta score + sqrt(2 eta) z`` with
        ``eta = 2 alpha (snr |z|/|score|)^2``, then the predictor's step; 1 NFE a step and 1 a correction
    Paper: Song et al. 2021, arXiv 2011.13456, algorithm 1.
    Use: with a thousand NFE, to reproduce Score-SDE; in ``edit`` by default.
    """
    predictors: dict[str, Update] = {
        "reverse-diffusion": ReverseDiffusion(noise),
        "euler-maruyama": EulerMaruyama(noise),
        "ancestral": Ancestral(),
        "ancestral-wide": Ancestral(wide=True),
        "none": NoPrediction(),
    }
    if predictor == corrector == "none":
        raise UsageError("a sampler without predictor and corrector goes nowhere", "give one of them")
    return PredictorCorrector(predictors[predictor], _corrector(corrector, snr, corrections))
