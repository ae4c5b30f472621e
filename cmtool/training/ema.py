"""Averaged weights, which sample better than the last ones."""

import copy

from torch import nn

from cmtool.core.averaging import follow

__all__ = ["Average", "decay"]


def decay(batch: int, images: int, half_life: float, ramp: float = 0.05) -> float:
    """``beta = 0.5^(batch / min(H, ramp n))``: weights H images ago count half, and early on less.

    Source: Karras et al. 2022, arXiv 2206.00364, reference settings.
    """
    return 0.5 ** (batch / max(min(half_life, ramp * images), 1e-8))


class Average:
    """An exponential moving average of a model's weights; ``half_life`` in images."""

    def __init__(self, model: nn.Module, half_life: float):
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.half_life = half_life

    def update(self, model: nn.Module, batch: int, images: int) -> None:
        """After a step of ``batch`` images that ends at ``images``."""
        follow(self.model, model, decay(batch, images, self.half_life))
