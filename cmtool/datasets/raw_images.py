"""Pictures that lie as arrays, in memory or mapped: any number of them are taken at once, and none is decoded."""

from bisect import bisect_right
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from cmtool.errors import BadFile
from cmtool.pictures import MAX_PIXELS, Size

__all__ = ["ArrayPlace", "Numbers", "RawImages"]


class RawImages:
    """Pictures uint8 of one size in arrays ``[n, C, H, W]``, one after the other; C is 1 or 3.

    The arrays may be views of mapped files. BadFile, which calls them ``title``, where they are none or differ.
    """

    def __init__(self, arrays: Sequence[np.ndarray], title: str):
        self.arrays = [np.asarray(array) for array in arrays]  # not of the class memmap, which is slower to index
        self.ends = np.cumsum([len(array) for array in self.arrays]).tolist()
        shapes = {array.shape[1:] for array in self.arrays}
        if len(shapes) != 1:
            raise BadFile(f"{title} holds images of several sizes: {', '.join(map(_sides, sorted(shapes)))}")
        (self.shape,) = shapes
        if self.shape[1] * self.shape[2] > MAX_PIXELS:
            raise BadFile(f"{title} has more than {MAX_PIXELS // 1_000_000} million pixels in an image")

    def __len__(self) -> int:
        return self.ends[-1]

    @property
    def size(self) -> Size:
        """That of each picture."""
        channels, height, width = self.shape
        return Size(width, height, channels == 1)

    def rows(self, indices: Sequence[int]) -> np.ndarray:
        """The pictures of these numbers, uint8 [B, C, H, W], copied."""
        wanted = np.asarray(indices, np.int64)
        if len(self.arrays) == 1:
            return np.ascontiguousarray(self.arrays[0][wanted])
        which = np.searchsorted(self.ends, wanted, side="right")
        found = np.empty((len(wanted), *self.shape), np.uint8)
        for k in np.unique(which):
            mine = which == k
            found[mine] = self.arrays[k][wanted[mine] - (self.ends[k] - len(self.arrays[k]))]
        return found

    def pixels(self, index: int) -> np.ndarray:
        """One picture, uint8 [H, W] or [H, W, 3], copied."""
        which = bisect_right(self.ends, index)
        image = self.arrays[which][index - (self.ends[which] - len(self.arrays[which]))]
        return np.array(image[0] if image.shape[0] == 1 else image.transpose(1, 2, 0), order="C")


@dataclass
class ArrayPlace:
    """The ``storage.ImageStorage`` of pictures that lie as arrays; ``title`` is its whole path in messages."""

    images: RawImages
    title: str
    name: str
    marks: Mapping[str, int]
    labels: Sequence[int | None] = ()
    class_names: Mapping[int, str] = field(default_factory=dict)
    remark: str | None = None
    what: str = "archive"
    text: bytes | None = None
    labels_in: str = ""
    unused: Sequence[str] = ()
    empty: Sequence[str] = ()

    @property
    def names(self) -> Sequence[str]:
        return Numbers(len(self.images))

    @property
    def rows(self) -> Callable[[Sequence[int]], np.ndarray]:
        return self.images.rows

    def call(self, index: int) -> str:
        return f"{self.title}:{index}"

    def size(self, index: int) -> Size:
        return self.images.size

    def sizes(self) -> Collection[Size]:
        return (self.images.size,)

    def pixels(self, index: int) -> np.ndarray:
        return self.images.pixels(index)


class Numbers(Sequence[str]):
    """The names ``00000000``, ``00000001``, ... of pictures that have none."""

    def __init__(self, count: int):
        self.places = range(count)

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> str:  # type: ignore[override]
        return f"{self.places[index]:08d}"


def _sides(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
