"""Which pixels are to be filled in: masks [B or 1, 1, H, W] in [0, 1], 1 where nothing is known."""

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from cmtool.core.noise import Noise

__all__ = ["border", "box", "feather", "random"]


def box(height: int, width: int, left: int, top: int, wide: int, high: int) -> Tensor:
    """A rectangle of ``wide`` x ``high`` pixels to be filled in, [1, 1, H, W]."""
    mask = torch.zeros(1, 1, height, width)
    mask[..., top : top + high, left : left + wide] = 1
    return mask


def border(height: int, width: int, top: int, left: int, bottom: int, right: int) -> Tensor:
    """So many pixels along each edge to be filled in, [1, 1, H, W]."""
    mask = torch.ones(1, 1, height, width)
    mask[..., top : height - bottom, left : width - right] = 0
    return mask


def random(height: int, width: int, share: float, seed: int) -> Tensor:
    """Each pixel to be filled in with probability ``share``, [1, 1, H, W]; a function of ``seed``."""
    draws = Noise([seed]).at(seed, MASK).random((1, 1, height, width))
    return (torch.from_numpy(draws) < share).float()


MASK = 4  # the name of the draw; beside START, LEVEL, LABEL and AUGMENT


def feather(mask: Tensor, width: int) -> Tensor:
    """The mask with a rim: around what is to be filled in it falls evenly from 1 to 0 over ``width`` pixels.

    Rings are counted with diagonal neighbours; nothing that was 1 becomes less.
    """
    out, grown = mask, mask
    for ring in range(1, width + 1):
        grown = max_pool2d(grown, 3, 1, 1)
        out = torch.maximum(out, grown * (1 - ring / (width + 1)))
    return out
