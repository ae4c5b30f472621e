"""A data set under the class numbers of a model that it goes on from."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from cmtool.datasets import Dataset

__all__ = ["Relabelled"]


class Relabelled:
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
