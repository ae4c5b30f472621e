"""Averaged weights, which sample better than the last ones."""

import copy

import torch
from torch import nn

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

    @torch.no_grad()
    def update(self, model: nn.Module, batch: int, images: int) -> None:
        """After a step of ``batch`` images that ends at ``images``."""
        beta = decay(batch, images, self.half_life)
        torch._foreach_lerp_(list(self.model.parameters()), list(model.parameters()), 1 - beta)
        for ours, theirs in zip(self.model.buffers(), model.buffers(), strict=True):
            ours.copy_(theirs)
