"""Walks down a reverse-time equation: a predictor goes from time to time, a corrector mends each place before it."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

from torch import Tensor

from cmtool.core.denoiser import Denoise, like
from cmtool.core.noise import Blend, Noise
from cmtool.core.operators import Operator
from cmtool.core.process import Process
from cmtool.core.sde import Motion, Update, score_of

__all__ = ["Held", "predictor_corrector"]


def predictor_corrector(
    model: Denoise,
    x: Tensor,
    times: Tensor,
    process: Process,
    noise: Noise | Blend,
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
    motion = Motion(process, score_of(model, process, labels), noise)
    for k, (t, s) in enumerate(pairwise(times)):
        if corrector:
            x, _ = corrector(motion, x, t, s)
        x, mean = predictor(motion, x, t, s)
        yield mean if denoise and k == len(times) - 2 else x


@dataclass(frozen=True)
class Held:
    """An update after which the known part of an editing task is that of its reference, noised to the same time.

    ``stays`` says that the update leaves time as it is, as a corrector does.
    Source: Song et al. 2021, arXiv 2011.13456, appendix I.2 and I.3.
    """

    update: Update
    operator: Operator
    stays: bool = False

    def __call__(self, motion: Motion, x: Tensor, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        x, mean = self.update(motion, x, t, s)
        at = t if self.stays else s
        known = like(motion.process.scale(at), x) * self.operator.reference
        noisy = known + like(motion.process.deviation(at), x) * motion.draw(x)
        return replace(self.operator, reference=noisy).impose(x), replace(self.operator, reference=known).impose(mean)
