"""Editing: any sampler, begun at what is known and constrained to keep it.

What is known is put back by ``Operator.impose``: into the image after each consistency step (``loops.multistep``), into
the denoised image of an ODE solver (``impose_known``), with its noise after each update of the reverse-time SDE
(``ConstrainedUpdate``), and once more into the result (``clip_keeping_known``).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cmtool.core.denoiser import Denoise, broadcast_like
from cmtool.core.editing.operators import Operator
from cmtool.core.noise import START, NoiseSource
from cmtool.core.sampling.loops import clip_denoised, multistep, probability_flow
from cmtool.core.sampling.predictor_corrector import ReverseSDESampler
from cmtool.core.sampling.samplers import MultistepSampler, ODESampler, Sampler
from cmtool.core.sampling.sde import ReverseSDE, Update
from cmtool.errors import UsageError

__all__ = ["NOT_CONSTRAINED", "ConstrainedUpdate", "clip_keeping_known", "edit", "impose_known", "initial_edit"]


@dataclass(frozen=True)
class ConstrainedUpdate:
    """An update after which the known part of an editing task is that of its reference, noised to the same time.

    ``stays`` says that the update leaves time as it is, as a corrector does.
    Source: Song et al. 2021, arXiv 2011.13456, appendix I.2 and I.3.
    """

    update: Update
    operator: Operator
    stays: bool = False

    @property
    def nfe(self) -> int:
        return self.update.nfe

    def __call__(self, sde: ReverseSDE, x: Tensor, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        x, mean = self.update(sde, x, t, s)
        at = t if self.stays else s
        known = broadcast_like(sde.process.scale(at), x) * self.operator.reference
        noisy = known + broadcast_like(sde.process.deviation(at), x) * sde.draw(x)
        return replace(self.operator, reference=noisy).impose(x), replace(self.operator, reference=known).impose(mean)


NOT_CONSTRAINED = ("this sampler cannot keep what is known", "try the sampler predictor-corrector or the solver heun")
OVER_RELAXATION = 1.9  # of the projection on [-1, 1]; from 2 on it need not converge
MAX_PROJECTIONS = 200  # what a lone blue channel near black needs to come within half a grey level


def edit(
    sampler: Sampler, operator: Operator, model: Denoise, noise: NoiseSource, labels: Tensor | None = None
) -> Iterator[Tensor]:
    """The images [B, ...] along an edit, the last of them with the known part of the operator, in [-1, 1]."""
    x = initial_edit(sampler, operator, noise)
    steps = _steps(sampler, operator, model, x, noise, labels)
    for x in steps:
        yield x
    yield clip_keeping_known(x, operator)


def initial_edit(sampler: Sampler, operator: Operator, noise: NoiseSource) -> Tensor:
    """What is known, with noise of the first noise level; in the native coordinates of a reverse-time SDE."""
    x, sigma = operator.start, sampler.sigmas[0]
    if not operator.noisy:
        x = x + broadcast_like(sigma, x) * noise.normal(x.shape[1:], START).to(x)
    if isinstance(sampler, ReverseSDESampler):
        return broadcast_like(sampler.process.scale(sampler.times[0]), x) * x
    return x


def _steps(
    sampler: Sampler, operator: Operator, model: Denoise, x: Tensor, noise: NoiseSource, labels: Tensor | None
) -> Iterator[Tensor]:
    if isinstance(sampler, MultistepSampler):  # algorithm 4 of Song et al. 2023
        return multistep(clip_denoised(model), x, sampler.sigmas, noise, labels, operator.impose, sampler.floor)
    if isinstance(sampler, ODESampler):
        return probability_flow(impose_known(model, operator), x, sampler.sigmas, sampler.solver, labels, noise)
    if isinstance(sampler, ReverseSDESampler):
        return constrain(sampler, operator)(model, x, noise, labels)
    raise UsageError(*NOT_CONSTRAINED)


def impose_known(model: Denoise, operator: Operator) -> Denoise:
    """The denoiser whose image has what is known: along its ODE the known part goes straight to the reference.

    With Euler's steps it is the projection of DDNM, and of DDRM without noise in what is measured.
    Source: Wang et al. 2023, arXiv 2212.00490, algorithm 1; Kawar et al. 2022, arXiv 2201.11793.
    """
    return lambda x, sigma, labels=None: operator.impose(model(x, sigma, labels))


def constrain(sampler: ReverseSDESampler, operator: Operator) -> ReverseSDESampler:
    """The sampler whose every update is followed by the known part with its noise; see ``ConstrainedUpdate``."""
    corrector = sampler.corrector and ConstrainedUpdate(sampler.corrector, operator, stays=True)
    return replace(sampler, predictor=ConstrainedUpdate(sampler.predictor, operator), corrector=corrector)


def clip_keeping_known(x: Tensor, operator: Operator) -> Tensor:
    """Images in [-1, 1] that have the known part, by alternating projections.

    Clipping alone would change what is known: the mean of a patch, or the grey value of a pixel. Both sets are convex
    and meet, so the projections converge (over-relaxation, nearly twice as far as the clipped image, gets there
    sooner). An image that already is in [-1, 1] is left alone.
    """
    for _ in range(MAX_PROJECTIONS):
        beyond = x.flatten(1).abs().amax(1) > 1 + 1e-6
        if not beyond.any():
            break
        projected = operator.impose(x + OVER_RELAXATION * (x.clamp(-1, 1) - x))
        x = torch.where(beyond.view(-1, *[1] * (x.ndim - 1)), projected, x)
    return x.clamp(-1, 1)
