"""A part of a data set, and a data set under the class numbers of another model."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from cmtool.datasets import Dataset
from cmtool.errors import UsageError

__all__ = ["DatasetSlice", "RelabelledDataset"]


class RelabelledDataset:
    """The same items; label ``k`` becomes ``numbers[k]``, an index into ``classes``."""

    def __init__(self, dataset: Dataset, numbers: Sequence[int], classes: tuple[str, ...]):
        self.dataset, self.numbers, self.classes = dataset, list(numbers), classes
        self.shape, self.notice = dataset.shape, dataset.notice
        self.remarks = getattr(dataset, "remarks", ())

    @property
    def inventory(self) -> Mapping[str, int] | None:
        return getattr(self.dataset, "inventory", None)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int, /) -> tuple[Tensor, int | None]:
        item, label = self.dataset[index]
        return item, None if label is None else self.numbers[label]

    def batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        """Items [B, *shape] and labels int64 [B] or None."""
        if batch := getattr(self.dataset, "batch", None):
            items, labels = batch(indices)
        else:
            pairs = [self.dataset[i] for i in indices]
            items = torch.stack([item for item, _ in pairs])
            labels = torch.tensor([label for _, label in pairs]) if self.dataset.classes else None
        return items, None if labels is None else torch.tensor(self.numbers)[labels]


class DatasetSlice:
    """The items ``start:stop:step`` of a data set, as a data set; nothing is copied. UsageError if that is none."""

    def __init__(self, dataset: Dataset, start: int | None = None, stop: int | None = None, step: int = 1):
        if step < 1:
            raise UsageError(f"the step of a slice is 1 or more, not {step}")
        self.dataset, self.rows = dataset, range(len(dataset))[start:stop:step]
        self.shape, self.classes, self.notice = dataset.shape, dataset.classes, dataset.notice
        self.remarks = getattr(dataset, "remarks", ())
        if not self.rows:
            span = ":".join("" if end is None else str(end) for end in (start, stop))
            raise UsageError(f"nothing lies in {span}", f"the data set has {len(dataset)} items")

    @property
    def inventory(self) -> Mapping[str, int] | None:
        return getattr(self.dataset, "inventory", None)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int, /) -> tuple[Tensor, int | None]:
        return self.dataset[self.rows[index]]

    def batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        """Items [B, *shape] and labels int64 [B] or None, at once where the data set can do that."""
        rows = [self.rows[i] for i in indices]
        if batch := getattr(self.dataset, "batch", None):
            return batch(rows)
        items, labels = zip(*(self.dataset[i] for i in rows), strict=True)
        return torch.stack(items), torch.tensor(labels) if self.classes else None
