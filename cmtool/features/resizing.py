"""How images reach the size of the Inception network."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from cmtool.features.torchscript import quiet

__all__ = ["SIDE", "resizer", "tensorflow"]

SIDE = 299


def resizer(mode: str) -> Callable[[Tensor], Tensor]:
    """uint8 [B, 3, H, W] -> float32 in [0, 255], [B, 3, 299, 299] or, where the network resizes, [B, 3, H, W]."""
    with quiet():
        from cleanfid.resize import build_resizer

        one = build_resizer(mode)

    def resize(images: Tensor) -> Tensor:
        rows = [one(image) for image in images.permute(0, 2, 3, 1).contiguous().cpu().numpy()]
        return torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2).float()

    return resize


def tensorflow(x: Tensor, side: int = SIDE) -> Tensor:
    """[B, C, H, W] -> [B, C, side, side], bilinear between the upper left corners of pixels, as TensorFlow 1 resizes.

    Output pixel i lies at ``i H / side`` of the input, and beyond its last pixel nothing changes.
    """
    return _along(_along(x, 2, side), 3, side)


def _along(x: Tensor, dim: int, side: int) -> Tensor:
    size = x.shape[dim]
    if size == side:
        return x
    place = torch.arange(side, device=x.device, dtype=torch.float32) * (size / side)
    low = place.long().clamp(max=size - 1)
    share = (place - low).view(-1, *[1] * (x.ndim - 1 - dim))
    a, b = x.index_select(dim, low), x.index_select(dim, (low + 1).clamp(max=size - 1))
    return a + (b - a) * share
