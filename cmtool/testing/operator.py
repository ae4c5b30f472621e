"""What an editing operator has to be."""

from collections.abc import Callable
from typing import Any

import torch

from cmtool.testing.common import close, fix_seed, require

__all__ = ["check_operator"]


@fix_seed()
def check_operator(factory: Callable[..., Any], **options: Any) -> None:
    """``factory(reference [B, C, H, W], **options)`` gives a linear map, its inverse and what of it is unknown.

    ``impose`` puts the known part of ``.reference`` back, which the task may have made of what it was given, changes
    nothing else, and twice is as good as once; ``pixels`` makes uint8 of images of any size.
    """
    given, x = torch.rand(2, 3, 16, 16) * 2 - 1, torch.randn(2, 3, 16, 16)
    task = factory(given, **options)
    y = task.reference
    require(close(task.inverse(task.forward(x)), x, 1e-5), "inverse(forward(x)) is x")
    both = task.forward(2 * x - y)
    require(close(both, 2 * task.forward(x) - task.forward(y), 1e-5), "forward is linear")
    require(close(task.impose(y), y, 1e-5), "impose leaves the reference as it is")
    edited = task.impose(x)
    require(close(task.impose(edited), edited, 1e-5), "impose twice is impose once")
    expected = task.known_part(y) + x - task.known_part(x)
    require(close(edited, expected, 1e-5), "impose(x) is the known part of the reference and the unknown part of x")
    rounded = task.pixels(torch.cat([given, given], -1))
    require(rounded.dtype == torch.uint8 and rounded.shape == (2, 3, 16, 32), "pixels gives uint8 images of that size")
    require(task.start.shape == y.shape, "start is an image of the size of the reference")
    require(task.level is None or task.level > 0, "level is a noise level, or None for the model's highest")
