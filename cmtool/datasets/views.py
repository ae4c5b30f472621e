"""A part of a data set, and a data set under the class numbers of another model."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from cmtool.datasets import Dataset, as_dataset
from cmtool.errors import UsageError

__all__ = ["DatasetSlice", "RelabelledDataset"]


class DatasetView(Dataset):
    """Another data set with something of it changed: here nothing."""

    def __init__(self, dataset: Any):
        self.dataset = as_dataset(dataset)
        self.shape, self.classes, self.notice = self.dataset.shape, self.dataset.classes, self.dataset.notice
        self.remarks, self.thread_safe = self.dataset.remarks, self.dataset.thread_safe

    @property
    def inventory(self) -> Mapping[str, int] | None:
        return self.dataset.inventory


class RelabelledDataset(DatasetView):
    """The same items; label ``k`` becomes ``numbers[k]``, an index into ``classes``."""

    def __init__(self, dataset: Any, numbers: Sequence[int], classes: tuple[str, ...]):
        super().__init__(dataset)
        self.numbers, self.classes = list(numbers), classes

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int, /) -> tuple[Tensor, int | None]:
        item, label = self.dataset[index]
        return item, None if label is None else self.numbers[label]

    def batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        items, labels = self.dataset.batch(indices)
        return items, None if labels is None else torch.tensor(self.numbers)[labels]


class DatasetSlice(DatasetView):
    """The items ``start:stop:step`` of a data set, as a data set; nothing is copied. UsageError if that is none."""

    def __init__(self, dataset: Any, start: int | None = None, stop: int | None = None, step: int = 1):
        if step < 1:
            raise UsageError(f"the step of a slice is 1 or more, not {step}")
        super().__init__(dataset)
        self.rows = range(len(self.dataset))[start:stop:step]
        if not self.rows:
            span = ":".join("" if end is None else str(end) for end in (start, stop))
            raise UsageError(f"nothing lies in {span}", f"the data set has {len(self.dataset)} items")

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int, /) -> tuple[Tensor, int | None]:
        return self.dataset[self.rows[index]]

    def batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        return self.dataset.batch([self.rows[i] for i in indices])
