"""Weights that follow other weights."""

import torch
from torch import nn

__all__ = ["follow"]


@torch.no_grad()
def follow(average: nn.Module, model: nn.Module, decay: float) -> None:
    """``average <- decay average + (1 - decay) model`` for every parameter; buffers are copied."""
    ours, theirs = list(average.parameters()), list(model.parameters())
    torch._foreach_lerp_(ours, theirs, 1 - decay)  # pyright: ignore - one kernel for all of them, but no public name
    for mine, other in zip(average.buffers(), model.buffers(), strict=True):
        mine.copy_(other)
