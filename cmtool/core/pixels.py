"""Between files and the model: uint8 [0, 255] at the edges, float32 [-1, 1] inside."""

import torch
from torch import Tensor

__all__ = ["to_model", "to_pixels", "truncated"]


def to_model(images: Tensor) -> Tensor:
    """``u / 127.5 - 1``; points are in model units already and pass through."""
    return images.float() / 127.5 - 1 if images.dtype == torch.uint8 else images


def to_pixels(x: Tensor) -> Tensor:
    """``clip(round((x + 1) 127.5))``, the exact inverse on what came from pixels."""
    return ((x.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def truncated(x: Tensor) -> Tensor:
    """``clip(floor((x + 1) 127.5))``, as OpenAI's programs write images; on average half a grey level darker."""
    return ((x.float() + 1) * 127.5).clamp(0, 255).to(torch.uint8)
