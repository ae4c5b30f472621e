"""Consistency within segments of the noise levels: one walk of a few jumps, each to the end of its segment.

A network D that predicts x_0 jumps from t to s by DDIM, which is Euler's step in sigma. What it is compared with is
read backwards: the x_0 that makes the jump from x_t end where the jump from x_r does. One segment is consistency
distillation; segments without a level between their ends are progressive distillation.
Source: Heek et al. 2024, arXiv 2403.06807, algorithm 1.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from cmtool.core.denoiser import Denoise, like
from cmtool.objectives.consistency import Consistency, Point

__all__ = ["Segments", "jump", "next_below"]


def jump(x: Tensor, t: Tensor, s: Tensor, denoised: Tensor) -> Tensor:
    """``D + s/t (x - D)``: x at s from x at t (Song et al. 2021, arXiv 2010.02502, eq. 12)."""
    return denoised + like(s / t, x) * (x - denoised)


def next_below(t: Tensor, grid: Tensor) -> Tensor:
    """The next level of a descending ``grid`` below each t, [B]."""
    rising = grid.to(t).flip(0)
    return rising[(torch.searchsorted(rising, t.contiguous()) - 1).clamp(min=0)]


class Segments(Consistency):
    """The pairwise loss of a denoiser whose jumps from t end where the segment that t lies in ends.

    ``boundaries()`` [K + 1] are the ends of the segments, descending; sampling takes K jumps. The target at or below
    the end of a segment is x_r itself.
    """

    kind = "score"

    def __init__(self, boundaries: Callable[[], Tensor], **choices: Any):
        super().__init__(**choices, sigma_min=0.0)
        self.boundaries = boundaries

    @property
    def sampling(self) -> list[float]:
        return self.boundaries()[:-1].tolist()

    def aim(self, model: Denoise, above: Point, below: Point, labels: Tensor | None) -> Tensor:
        """The x_0 for which ``jump(x_t, t, s, x_0) = jump(x_r, r, s, D(x_r, r))``."""
        (x_t, t), (x_r, r) = above, below
        s = next_below(t, self.boundaries())
        x_s = x_r if bool((r <= s).all()) else jump(x_r, r, s, super().aim(model, above, below, labels))
        x_s = torch.where(like(r <= s, x_r).bool(), x_r, x_s)
        return x_t + like(t / (t - s), x_t) * (x_s - x_t)
