"""The pictures of data by number, each of its own size as it is stored: files, or the items of a named data set."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, Protocol

import numpy as np
import torch

from cmtool.datasets import Dataset
from cmtool.datasets.labels import find_labels
from cmtool.datasets.places import open_storage
from cmtool.datasets.raw_images import Numbers
from cmtool.datasets.storage import Choice, ImageStorage
from cmtool.errors import CmtoolError, UsageError
from cmtool.options import registry
from cmtool.pictures import Size, planes
from cmtool.pipelines.inputs import open_dataset, parse_slice

__all__ = ["GeneratedPictures", "NumberedPictures", "StoredPictures", "open_pictures"]


class NumberedPictures(Protocol):
    """Pictures 0, 1, ...; any number of threads may read them.

    ``what`` is what they lie in, ``classes`` are the names of the labels 0, 1, ...; ``labels`` are in their order, None
    where there are none, or where each comes with its picture alone; ``remarks`` are lines on what was passed over.
    """

    @property
    def what(self) -> str: ...

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def labels(self) -> Sequence[int] | None: ...

    @property
    def remarks(self) -> tuple[str, ...]: ...

    def __len__(self) -> int: ...

    def call(self, number: int) -> str:
        """What messages call a picture."""
        ...

    def key(self, number: int) -> str:
        """Its path within the folder or archive; "" where pictures have numbers and no names."""
        ...

    def size(self, number: int) -> Size | None:
        """Its size before it is decoded, None of a point; BadFile where it is no picture."""
        ...

    def read(self, number: int) -> tuple[np.ndarray, int | None]:
        """uint8 [C, H, W], or a point float32 [D], and its label; BadFile where it is damaged."""
        ...


class StoredPictures:
    """Those of a place, or a part of them; labels that are damaged become a remark, for others to decide upon."""

    def __init__(self, place: ImageStorage, labels: str = "auto", part: slice = slice(None)):
        self.place, self.what = place, place.what
        self.rows = range(len(place.names))[part]
        try:
            known = find_labels(place, labels)
            found, self.classes, remarks = known.labels, known.classes, known.remarks
        except CmtoolError as error:
            found, self.classes, remarks = None, (), [f"{place.name} has no labels that can be used: {error}"]
        self.labels = (
            None if found is None else found if len(found) == len(self.rows) else [found[i] for i in self.rows]
        )
        self.remarks = (*remarks, *([f"{place.name}: {place.remark}"] if place.remark else []))

    def __len__(self) -> int:
        return len(self.rows)

    def call(self, number: int) -> str:
        return self.place.call(self.rows[number])

    def key(self, number: int) -> str:
        names = self.place.names
        return "" if isinstance(names, Numbers) else names[self.rows[number]]

    def size(self, number: int) -> Size:
        return self.place.size(self.rows[number])

    def read(self, number: int) -> tuple[np.ndarray, int | None]:
        return planes(self.place.pixels(self.rows[number])), None if self.labels is None else self.labels[number]


class GeneratedPictures:
    """The items of a data set, whose labels come with them."""

    what, labels = "data set", None

    def __init__(self, name: str, dataset: Dataset):
        self.name, self.dataset, self.classes, self.remarks = name, dataset, dataset.classes, dataset.remarks

    def __len__(self) -> int:
        return len(self.dataset)

    def call(self, number: int) -> str:
        return f"{self.name}:{number}"

    def key(self, number: int) -> str:
        return ""

    def size(self, number: int) -> Size | None:
        if len(self.dataset.shape) != 3:
            return None
        channels, height, width = self.dataset.shape
        return Size(width, height, channels == 1)

    def read(self, number: int) -> tuple[np.ndarray, int | None]:
        item, label = self.dataset[number]
        return torch.as_tensor(item).numpy(), label if self.classes else None


def open_pictures(spec: Mapping[str, Any]) -> NumberedPictures:
    """Of ``{"name": ..., "source": ..., "slice": ..., options}``, as ``open_dataset`` reads it.

    Of files only the options that say which pictures are meant count, and those of labels: nothing is resized.
    """
    if spec["name"] != "folder":
        return GeneratedPictures(spec["name"], open_dataset(spec))
    named = {key: spec.get(key) for key in ("source", "slice")}
    options = registry.parse_spec("datasets", {key: value for key, value in spec.items() if key not in named})
    choice = Choice(**{field.name: options.get(field.name) for field in fields(Choice)})
    part = slice(None) if named["slice"] is None else parse_slice(str(named["slice"]))
    pictures = StoredPictures(open_storage(named["source"], choice), options.get("labels", "auto"), part)
    if not len(pictures):
        count = f"it has {len(pictures.place.names):,}"
        raise UsageError(f"{named['source']} has no images in [{named['slice']}]", count)
    return pictures
