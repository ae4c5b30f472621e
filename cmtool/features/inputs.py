"""Images as every feature network takes them: three channels, in groups of one size."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, TypeVar

import torch
from torch import Tensor

from cmtool.errors import Hint, Setting, UsageError
from cmtool.options.plugin_option import Option

__all__ = ["DeviceOption", "in_chunks", "rgb"]

POINTS_NEED = Hint("points need {}", Setting("features", "points"))
DeviceOption = Annotated[str, Option("device of the network: cpu, cuda, cuda:N or mps")]


def rgb(images: Tensor, features: str) -> Tensor:
    """``images`` [B, 1 or 3, H, W] with grey repeated to [B, 3, H, W]; UsageError when they are no such images."""
    if images.ndim != 4:
        raise UsageError(f"the features '{features}' measure images, not points", POINTS_NEED)
    if images.shape[1] not in (1, 3):
        raise UsageError(f"the features '{features}' measure images with 1 or 3 channels, not {images.shape[1]}")
    return images.expand(-1, 3, -1, -1)


T = TypeVar("T")


def in_chunks(look: Callable[[Tensor], T], images: Tensor, size: int) -> list[T]:
    """``look`` of ``images`` [B, ...], ``size`` rows at a time; the last chunk is filled up with copies.

    A kernel splits its sums by the number of rows and of threads, and a sum split elsewhere rounds otherwise. So each
    chunk has the same number of rows and is computed by one thread, and as many chunks at a time as there are threads.
    The first B rows of all results are those of the images.
    """
    rows = torch.arange(max(len(images) + -len(images) % size, size), device=images.device)
    chunks = images[rows.clamp(max=len(images) - 1)].split(size) if len(images) else (images,)
    threads = torch.get_num_threads()
    if threads == 1 or images.device.type != "cpu":
        return [look(chunk) for chunk in chunks]
    with ThreadPoolExecutor(min(threads, len(chunks)), "features", torch.set_num_threads, (1,)) as pool:
        try:
            torch.set_num_threads(1)
            return list(pool.map(look, chunks))
        finally:
            torch.set_num_threads(threads)
