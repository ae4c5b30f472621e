"""Data sets: plugins that ship with us.

A data set is a function ``(source, *, **options) -> Dataset``, registered in the entry-point group
``cmtool.datasets``. ``source`` is the path a user gave, or None.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["Dataset", "as_dataset"]


class Dataset(ABC):
    """Images uint8 ``[C, H, W]``, or points float32 ``[D]`` in model units, each with a label or None.

    ``shape``      that of one item
    ``classes``    the names of the labels 0, 1, ...; empty where there are none
    ``notice``     one line with attribution and licence
    ``remarks``    lines on what was passed over, such as files that are no images
    ``inventory``  ``{name: number}`` of a data set that reads files, where a number changes with the contents of its
                   file: by it a run that is taken up knows its data again, wherever they lie
    ``thread_safe``  whether several threads may ask for items at once; they take turns otherwise

    An item depends on its index alone.
    """

    shape: tuple[int, ...]
    classes: tuple[str, ...] = ()
    notice: str = ""
    remarks: tuple[str, ...] = ()
    thread_safe: bool = False

    @property
    def inventory(self) -> Mapping[str, int] | None:
        """None of a data set that reads no files."""
        return None

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int, /) -> tuple[Tensor, int | None]: ...

    def batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        """Items [B, *shape], labels int64 [B] or None, as of ``[i]``; override it where many can be made at once."""
        items, labels = zip(*(self[i] for i in indices), strict=True)
        return torch.stack([torch.as_tensor(item) for item in items]), torch.tensor(labels) if self.classes else None


class AdaptedDataset(Dataset):
    """A data set of a class of its own, with the defaults of what it leaves out."""

    def __init__(self, found: Any):
        self.found = found
        self.shape, self.classes = tuple(found.shape), tuple(found.classes)
        self.notice, self.remarks = getattr(found, "notice", ""), tuple(getattr(found, "remarks", ()))
        self.thread_safe = bool(getattr(found, "thread_safe", False))
        self.make_batch = getattr(found, "batch", super().batch)

    @property
    def inventory(self) -> Mapping[str, int] | None:
        return getattr(self.found, "inventory", None)

    def __len__(self) -> int:
        return len(self.found)

    def __getitem__(self, index: int, /) -> tuple[Tensor, int | None]:
        return self.found[index]

    def batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        return self.make_batch(indices)


def as_dataset(found: Any) -> Dataset:
    """A ``Dataset`` of what has ``len``, ``[i]``, ``shape`` and ``classes``; itself where it is one."""
    return found if isinstance(found, Dataset) else AdaptedDataset(found)
