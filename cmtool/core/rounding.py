"""Rounding to whole grey levels such that a weighted sum survives it."""

import torch
from torch import Tensor

__all__ = ["carried"]


def carried(values: Tensor, weights: Tensor) -> Tensor:
    """Whole numbers in [0, 255] near ``values`` [..., n] whose sum by ``weights`` [n] is that of the values.

    What rounding one number adds to the sum is taken off the next, so only the rounding of the last one is left: put
    the smallest weight last. With equal weights a whole sum is kept exactly.
    """
    out, debt = torch.empty_like(values), torch.zeros_like(values[..., 0])
    for k, weight in enumerate(weights.tolist()):
        wanted = values[..., k] + debt / weight
        out[..., k] = wanted.round().clamp(0, 255)
        debt = (wanted - out[..., k]) * weight
    return out
