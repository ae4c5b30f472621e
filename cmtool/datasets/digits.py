"""``digits``: 1797 small handwritten digits, real data that needs no download."""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from cmtool.datasets import Dataset
from cmtool.errors import MissingAsset, UsageError
from cmtool.options.plugin_option import Option
from cmtool.options.types import at_least

__all__ = ["Digits", "digits"]

SIDE = 8


class Digits(Dataset):
    """Grey 8 x 8 images of the digits 0 to 9 by 43 people, enlarged by repeating pixels where ``size`` is above 8.

    The stored counts of ink, 0 to 16, become ``round(255 v / 16)``.
    """

    classes = tuple("0123456789")
    thread_safe = True
    notice = "Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak, UCI repository, CC BY 4.0"

    def __init__(self, ink: np.ndarray, labels: np.ndarray, size: int):
        self.shape = (1, size, size)
        self.images = torch.from_numpy(np.rint(ink * (255 / 16)).astype(np.uint8))[:, None]
        for axis in (2, 3):
            self.images = self.images.repeat_interleave(size // SIDE, axis)
        self.labels = torch.from_numpy(labels.astype(np.int64))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int, /) -> tuple[Tensor, int]:
        return self.images[index], int(self.labels[index])

    def batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Images uint8 [B, 1, size, size] and labels int64 [B]."""
        rows = torch.as_tensor(indices, dtype=torch.long)
        return self.images[rows], self.labels[rows]


def digits(
    source: str | None = None,
    *,
    size: Annotated[int, Option("side in pixels, 8 or a multiple of it", at_least(1, 1 << 14))] = 8,
) -> Digits:
    """Handwritten digits: 1,797 grey images of 8x8 pixels in ten classes, which come with scikit-learn.

    Use: to try a method in minutes; needs no download. MissingAsset without scikit-learn.
    """
    if source is not None:
        raise UsageError(f"'digits' comes with scikit-learn and reads nothing from {source}", "leave the path out")
    if size < SIDE or size % SIDE:
        raise UsageError(f"the digits are {SIDE} x {SIDE}: they cannot have size {size}", "use 8, 16, 24 or 32")
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise MissingAsset(
            "the data set 'digits' comes with scikit-learn, which is not installed", "pip install 'cmtool[digits]'"
        ) from None
    ink, labels = load_digits(return_X_y=True)
    return Digits(ink.reshape(-1, SIDE, SIDE), labels, size)
