"""Where pictures lie: what every place gives, and the folder; ``places.py`` has the list of all others."""

import json
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from posixpath import dirname, splitext
from typing import Protocol

import numpy as np

from cmtool.datasets.positional import PositionalFile
from cmtool.errors import MissingInput
from cmtool.label_files import label_file
from cmtool.pictures import MAX_BYTES, SUFFIXES, Size, decode, size_of_file, unread_kinds
from cmtool.user_paths import files_below, is_visible

__all__ = [
    "Choice",
    "FolderStorage",
    "ImageStorage",
    "Rows",
    "distinct_sizes",
    "fingerprint",
    "is_picture",
    "list_some",
    "show_path",
    "without_pictures",
]


ENDS = 4096
AT_ONCE, READERS = 1024, 4  # pictures of a task, and how many tasks look at once
Rows = Callable[[Sequence[int]], np.ndarray]


@dataclass(frozen=True)
class Choice:
    """Which part of a place is meant, where it has several: the split, and the columns of pictures and labels."""

    split: str | None = None
    image_column: str | None = None
    label_column: str | None = None


class ImageStorage(Protocol):
    """Pictures by number, in the order of their ``names`` (paths with ``/``); any number of threads may read.

    ``what`` and ``name`` are what messages call the place. ``marks`` has a number for each picture, or for each file
    of a large place, that changes with its contents. ``labels`` are those that the place itself gives to pictures, in
    their order, empty where it gives none, and ``class_names`` what it calls them; ``text`` is its ``dataset.json``,
    where it has any, which lies in the folder ``labels_in``; ``unused`` are others of that name. ``empty`` are first
    folders without pictures. ``remark`` is one line on what was passed over.

    ``rows`` is there where the pictures are arrays of one size: those of some numbers at once, uint8 ``[B, C, H, W]``,
    C 1 or 3. It is None where each picture is a file to be decoded.
    """

    @property
    def what(self) -> str: ...

    @property
    def name(self) -> str: ...

    @property
    def names(self) -> Sequence[str]: ...

    @property
    def marks(self) -> Mapping[str, int]: ...

    @property
    def labels(self) -> Sequence[int | None]: ...

    @property
    def class_names(self) -> Mapping[int, str]: ...

    @property
    def text(self) -> bytes | None: ...

    @property
    def labels_in(self) -> str: ...

    @property
    def unused(self) -> Sequence[str]: ...

    @property
    def empty(self) -> Sequence[str]: ...

    @property
    def remark(self) -> str | None: ...

    @property
    def rows(self) -> Rows | None: ...

    def call(self, index: int) -> str:
        """What messages call a picture."""
        ...

    def size(self, index: int) -> Size:
        """The size of a picture, which need not be decoded for that; BadFile where it is none."""
        ...

    def sizes(self) -> Collection[Size]:
        """The sizes that occur; BadFile where a picture is none."""
        ...

    def pixels(self, index: int) -> np.ndarray:
        """uint8 ``[H, W]`` or ``[H, W, 3]``; BadFile where it is damaged."""
        ...


class FolderStorage:
    """The pictures below a folder; links are followed, hidden files and folders of systems passed over."""

    what, rows = "folder", None
    class_names: Mapping[int, str] = {}

    def __init__(self, root: Path):
        self.root, self.name = root, show_path(root.resolve().name)
        files, folders = files_below(root)
        self.names = [name for name in files if is_picture(name)]
        self.files = [root / name for name in self.names]
        if not self.files:
            there = sorted(entry.name for entry in root.iterdir())
            raise MissingInput(
                f"there are no images in {root}", f"it holds: {list_some(there)}; read are {', '.join(SUFFIXES)}"
            )
        labels, self.unused = label_file(files, self.names)
        self.text, self.labels_in = (_start(root / labels), dirname(labels)) if labels else (None, "")
        self.labels = () if self.text else _from_manifest(root / "manifest.jsonl", self.names)
        self.empty = without_pictures(folders, self.names)
        self.remark = unread_kinds([name for name in files if not is_picture(name)])

    def call(self, index: int) -> str:
        return show_path(str(self.files[index]))

    @property
    def marks(self) -> Mapping[str, int]:
        return {name: _mark(path) for name, path in zip(self.names, self.files, strict=True)}

    def size(self, index: int) -> Size:
        return size_of_file(self.files[index], self.call(index))

    def pixels(self, index: int) -> np.ndarray:
        return decode(self.files[index], self.call(index))

    def sizes(self) -> Collection[Size]:
        return distinct_sizes(self)


def is_picture(name: str) -> bool:
    """Whether a path is that of a picture that is read, by its suffix, and neither hidden nor in a hidden folder."""
    return splitext(name)[1].lower() in SUFFIXES and is_visible(name)


def distinct_sizes(place: ImageStorage) -> set[Size]:
    """The sizes of all pictures, of which the first bytes are read; the first that is none is a BadFile."""
    everything = range(len(place.names))
    parts = [everything[at : at + AT_ONCE] for at in range(0, len(everything), AT_ONCE)]

    def look(part: Sequence[int]) -> set[Size]:
        return {place.size(index) for index in part}

    with ThreadPoolExecutor(READERS) as pool:  # a slow disk is asked for several at once
        return set().union(*pool.map(look, parts))


def without_pictures(folders: Sequence[str], pictures: Sequence[str]) -> list[str]:
    """Those of the first folders in which no picture lies."""
    return sorted(set(folders) - {name.partition("/")[0] for name in pictures})


def fingerprint(file: PositionalFile, start: int, size: int) -> int:
    """A number that changes with the size of what lies at ``start``, and with its first and last 4 KB."""
    head, tail = file.read(start, min(size, ENDS)), file.read(start + max(size - ENDS, 0), min(size, ENDS))
    return zlib.crc32(head + tail, size % (1 << 32))


def _mark(path: Path) -> int:
    file = PositionalFile(path, kept=False)
    return fingerprint(file, 0, file.size)


def show_path(name: str) -> str:
    """A name as messages show it: what cannot be printed is written out."""
    return name if name.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)


def list_some(names: Sequence[str], most: int = 8) -> str:
    """``a, b, ...``."""
    return ", ".join([*map(show_path, names[:most]), *(["..."] if len(names) > most else [])]) or "nothing"


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_BYTES)


def _from_manifest(path: Path, names: Sequence[str]) -> Sequence[int]:
    """The classes of ``sample``'s own list, ``{"seed": 7, "class": 3, ...}`` a line, where it knows that of each."""
    if not path.is_file():
        return ()
    try:
        lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        found = {f"{line['seed']:08d}.png": line["class"] for line in lines if line["class"] is not None}
    except (ValueError, TypeError, KeyError, RecursionError):
        return ()
    return [found[name] for name in names] if found.keys() >= set(names) else ()
