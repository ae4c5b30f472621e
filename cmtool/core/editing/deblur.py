"""Deblurring: the operator whose known coordinates are the frequencies that a Gaussian blur let through."""

import math
from typing import Annotated

import torch
from torch import Tensor

from cmtool.core.editing.operators import HIGH, Operator
from cmtool.errors import Hint, Setting, UsageError
from cmtool.options.plugin_option import Option

__all__ = ["blur_image", "cosines", "deblur"]

LEAST = 0.1  # of an amplitude; below it the rounding to grey levels would be multiplied by more than 10


def deblur(
    reference: Tensor, *, blur: Annotated[float, Option("standard deviation of the blur in pixels")] = 1.0
) -> Operator:
    """Undo a Gaussian blur of standard deviation ``blur`` pixels, mirrored at the edges.

    In the orthogonal cosine transform the blur multiplies frequency (i, j) by ``h_i h_j``; where that is at least 0.1
    the coordinate of the sharp image is known, ``(A y) / (h_i h_j)``, and elsewhere it is not.

    Formula: A the cosine transform (DCT-II) of rows and columns; ``Omega = 1`` where ``h_i h_j < 0.1``
    Use: with a blurred picture whose blur is about known.
    """
    if blur <= 0:
        raise UsageError(f"a blur has a width above 0, not {blur:g}", Hint("give {}", Setting("blur", 1)))
    down, across, passed = _spectrum(reference, blur)

    def forward(x: Tensor) -> Tensor:
        return down @ x @ across.T

    def inverse(y: Tensor) -> Tensor:
        return down.T @ y @ across

    unknown = passed < LEAST
    sharp = inverse(torch.where(unknown, 0.0, forward(reference) / passed.clamp(min=LEAST)))
    return Operator(sharp, forward, inverse, unknown, start=sharp, level=HIGH)


def blur_image(x: Tensor, blur: float) -> Tensor:
    """Images [B, C, H, W] after a Gaussian blur of standard deviation ``blur`` pixels."""
    down, across, passed = _spectrum(x, blur)
    return down.T @ ((down @ x @ across.T) * passed) @ across


def cosines(n: int) -> Tensor:
    """The orthogonal cosine transform (DCT-II), float64 [n, n]: row i has frequency i pi / n."""
    k = torch.arange(n, dtype=torch.float64)
    rows = (math.pi / n * k[:, None] * (k + 0.5)).cos() * math.sqrt(2 / n)
    rows[0] /= math.sqrt(2)
    return rows


def _spectrum(x: Tensor, blur: float) -> tuple[Tensor, Tensor, Tensor]:
    """The transforms of columns and of rows, and what of each frequency passes [H, W]."""
    height, width = x.shape[-2:]
    h, w = (torch.exp(-((blur * math.pi / n * torch.arange(n, dtype=torch.float64)) ** 2) / 2) for n in (height, width))
    return cosines(height).to(x), cosines(width).to(x), torch.outer(h, w).to(x)
