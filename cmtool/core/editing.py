"""Edits: any walk from noise to images, begun at what is known and made to keep it."""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from cmtool.core.denoiser import Denoise, like
from cmtool.core.noise import START, Blend, Noise
from cmtool.core.operators import Operator
from cmtool.core.predictor_corrector import Held
from cmtool.core.samplers import clipped, multistep, probability_flow
from cmtool.core.walks import AlongODE, Jumps, Reverse, Walk
from cmtool.errors import UsageError

__all__ = ["begin", "edit", "imposed", "settled"]

FAR = 1.9  # of a projection; from 2 on it need not converge
TURNS = 200  # what a lone blue channel near black needs to come within half a grey level


def edit(
    walk: Walk, operator: Operator, model: Denoise, noise: Noise | Blend, labels: Tensor | None = None
) -> Iterator[Tensor]:
    """The images [B, ...] along an edit, the last of them with the known part of the operator, in [-1, 1]."""
    x = begin(walk, operator, noise)
    for here in _steps(walk, operator, model, x, noise, labels):
        yield (x := here)
    yield settled(x, operator)


def begin(walk: Walk, operator: Operator, noise: Noise | Blend) -> Tensor:
    """What is known, with the noise of the first level; in the native coordinates of a reverse-time equation."""
    x, sigma = operator.start, walk.levels[0]
    if not operator.noisy:
        x = x + like(sigma, x) * noise.normal(x.shape[1:], START).to(x)
    return like(walk.process.scale(walk.times[0]), x) * x if isinstance(walk, Reverse) else x


def _steps(
    walk: Walk, operator: Operator, model: Denoise, x: Tensor, noise: Noise | Blend, labels: Tensor | None
) -> Iterator[Tensor]:
    if isinstance(walk, Jumps):  # algorithm 4 of Song et al. 2023
        return multistep(clipped(model), x, walk.levels, noise, labels, operator.impose, walk.floor)
    if isinstance(walk, AlongODE):
        return probability_flow(imposed(model, operator), x, walk.levels, walk.solver, labels, noise)
    if isinstance(walk, Reverse):
        return held(walk, operator)(model, x, noise, labels)
    raise UsageError("this sampler cannot be told what is known", "try --solver predictor-corrector or --solver heun")


def imposed(model: Denoise, operator: Operator) -> Denoise:
    """The denoiser whose image has what is known: along its ODE the known part goes straight to the reference.

    With Euler's steps it is the projection of DDNM, and of DDRM without noise in what is measured.
    Source: Wang et al. 2023, arXiv 2212.00490, algorithm 1; Kawar et al. 2022, arXiv 2201.11793.
    """
    return lambda x, sigma, labels=None: operator.impose(model(x, sigma, labels))


def held(walk: Reverse, operator: Operator) -> Reverse:
    """The walk whose every update is followed by the known part at its level of noise; see ``Held``."""
    corrector = walk.corrector and Held(walk.corrector, operator, stays=True)
    return replace(walk, predictor=Held(walk.predictor, operator), corrector=corrector)


def settled(x: Tensor, operator: Operator) -> Tensor:
    """Images in [-1, 1] that have the known part, found by giving them the one and the other in turn.

    Clipping alone would change what is known: the mean of a patch, or the grey value of a pixel. Both sets are convex
    and meet, so the turns converge (alternating projections; going nearly twice as far as the clipped image gets there
    sooner). An image that is settled is left alone.
    """
    for _ in range(TURNS):
        beyond = x.flatten(1).abs().amax(1) > 1 + 1e-6
        if not beyond.any():
            break
        x = torch.where(beyond.view(-1, *[1] * (x.ndim - 1)), operator.impose(x + FAR * (x.clamp(-1, 1) - x)), x)
    return x.clamp(-1, 1)
