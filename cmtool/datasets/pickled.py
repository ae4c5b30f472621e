"""Dictionaries of arrays and lists that data sets are published as pickles of: described, never unpickled.

What stands where in the file is told by ``files.safe_pickle``, in a process of its own with limits, which imports and
calls nothing of what the file names.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cmtool.datasets.storage import show_path
from cmtool.errors import BadFile
from cmtool.files.safe_pickle.sandbox import describe_objects

__all__ = ["PickledTable", "planar_images", "read_table"]

STARTS = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"(dp", b"}")  # of pickles of dictionaries
MOST = 1 << 31  # bytes of an array that is copied


@dataclass(frozen=True)
class PickledTable:
    """The entries of a pickled dictionary, described as in ``safe_pickle.outline``."""

    path: Path
    title: str
    entries: dict[str, Any]

    def array(self, key: str, mapped: bool = False) -> np.ndarray:
        """An array of numbers, copied or mapped; BadFile where there is none of that name."""
        found = self.entries.get(key)
        if not isinstance(found, list) or found[0] != "a":
            raise BadFile(f"{self.title} has no array '{key}'", "get it again from whoever made it")
        _, dtype, start, size, text, shape, fortran = found
        order = "F" if fortran else "C"
        if mapped and not text:
            return np.memmap(self.path, np.dtype(dtype), "r", start, tuple(shape), order)
        if size > MOST:
            raise BadFile(f"{self.title} has an array that is larger than {MOST >> 30} GB")
        with self.path.open("rb") as file:
            file.seek(start)
            raw = file.read(size)
        values = np.frombuffer(raw.decode().encode("latin1") if text else raw, np.dtype(dtype))
        return values.reshape(shape, order=order)

    def numbers(self, key: str) -> list[int]:
        """A list or an array of whole numbers."""
        found = self.entries.get(key)
        if isinstance(found, list) and found[0] == "a":
            found = ["l", *self.array(key).tolist()]
        if not isinstance(found, list) or found[0] != "l" or not all(type(n) is int for n in found[1:]):
            raise BadFile(f"{self.title} has no whole numbers '{key}'", "get it again from whoever made it")
        return found[1:]

    def texts(self, key: str) -> list[str]:
        """A list of texts; an empty one where there is none."""
        found = self.entries.get(key)
        good = isinstance(found, list) and found[0] == "l" and all(type(text) is str for text in found[1:])
        return found[1:] if good else []  # type: ignore[index]


def read_table(path: Path, title: str | None = None) -> PickledTable:
    """The dictionary that a file describes; BadFile where it is none, is damaged, or asks for anything else."""
    title = title or show_path(str(path))
    outline = describe_objects(path, title)
    if not isinstance(outline, list) or outline[0] != "d":
        raise BadFile(f"{title} is no table of images and labels", "get it again from whoever made it")
    pairs = zip(outline[1::2], outline[2::2], strict=True)
    return PickledTable(path, title, {str(key): value for key, value in pairs})


def planar_images(data: np.ndarray, title: str) -> np.ndarray:
    """Rows of 3 R^2 values, all red ones first, as a view ``[N, 3, R, R]``; BadFile for anything else."""
    side = round((data.shape[1] / 3) ** 0.5) if data.ndim == 2 else 0
    if data.dtype != np.uint8 or data.ndim != 2 or 0 in data.shape or data.shape[1] != 3 * side**2:
        sides = ", ".join(map(str, data.shape))
        raise BadFile(f"{title} holds {data.dtype} [{sides}], which are no rows of images", "rows are 3 R^2 values")
    return data.reshape(-1, 3, side, side)
