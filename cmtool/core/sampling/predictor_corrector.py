"""Predictor-corrector sampling and annealed Langevin dynamics.

A predictor goes from time to time, a corrector takes noisy gradient steps on the log-density at each.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from cmtool.core.denoiser import Denoise, broadcast_like
from cmtool.core.noise import Noise, SlerpNoise
from cmtool.core.process import EDM, Process
from cmtool.core.sampling.sde import ReverseSDE, Update, score_function

__all__ = ["ALD", "Langevin", "annealed_langevin", "langevin_step", "predictor_corrector"]


def langevin_step(x: Tensor, score: Tensor, eta: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """``x + eta score + sqrt(2 eta) z`` with and without its last term; ``eta`` is [] or [B]."""
    mean = x + broadcast_like(eta, x) * score
    return mean + broadcast_like((2 * eta).sqrt(), x) * z, mean


def annealed_langevin(
    model: Denoise,
    x: Tensor,
    levels: Tensor,
    noise: Noise | SlerpNoise,
    rate: float = 0.2,
    steps: int = 100,
    labels: Tensor | None = None,
) -> Iterator[Tensor]:
    """``steps`` Langevin steps of size ``eta = rate sigma^2`` at each level; yields x [B, ...] after each level.

    ``x`` begins anywhere; ``levels`` descend. NCSN writes ``eta = epsilon sigma_i^2 / sigma_L^2`` with epsilon 2e-5 and
    ``sigma_L = 0.01``, which is rate 0.2, and its code has the step above, twice the size of its paper's.
    Source: Song and Ermon 2019, arXiv 1907.05600, algorithm 1.
    """
    motion = ReverseSDE(EDM(), score_function(model, EDM(), labels), noise)
    for sigma in levels:
        for _ in range(steps):
            x, _ = langevin_step(x, motion.score(x, sigma), rate * sigma**2, motion.draw(x))
        yield x


def _alpha(motion: ReverseSDE, t: Tensor, s: Tensor) -> Tensor:
    """``a^2`` of the step from s to t, the ``alpha_i`` of a variance-preserving chain; 1 where nothing is scaled."""
    return motion.process.transition(t, s)[0] ** 2


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

    def __call__(self, motion: ReverseSDE, x: Tensor, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        mean = x
        for _ in range(self.steps):
            score, z = motion.score(x, t), motion.draw(x)
            ratio = self._norm(z) / self._norm(score)
            x, mean = langevin_step(x, score, 2 * _alpha(motion, t, s) * (self.snr * ratio) ** 2, z)
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

    def __call__(self, motion: ReverseSDE, x: Tensor, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        eta, mean = 2 * _alpha(motion, t, s) * (self.snr * motion.process.deviation(t)) ** 2, x
        for _ in range(self.steps):
            x, mean = langevin_step(x, motion.score(x, t), eta, motion.draw(x))
        return x, mean


def predictor_corrector(
    model: Denoise,
    x: Tensor,
    times: Tensor,
    process: Process,
    noise: Noise | SlerpNoise,
    predictor: Update,
    corrector: Update | None = None,
    labels: Tensor | None = None,
    denoise: bool = True,
) -> Iterator[Tensor]:
    """Walk ``x_t`` [B, ...] down the native ``times`` [n + 1], yielding it after each of the n steps.

    At each time the corrector comes first, then the predictor; with ``denoise`` the last step adds no noise. Divide
    what is yielded by ``process.scale`` of its time for the image in the coordinates of the model. Draw k of the walk
    is stream STEP + k, in the order of the updates. ``n (1 + corrector steps)`` evaluations.
    Source: Song et al. 2021, arXiv 2011.13456, algorithm 1.
    """
    motion = ReverseSDE(process, score_function(model, process, labels), noise)
    for k, (t, s) in enumerate(pairwise(times)):
        if corrector:
            x, _ = corrector(motion, x, t, s)
        x, mean = predictor(motion, x, t, s)
        yield mean if denoise and k == len(times) - 2 else x
