"""Where pictures lie: a folder here, archives and arrays beside it in ``archive_storage.py`` and ``arrays.py``."""

import json
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from posixpath import dirname
from typing import BinaryIO, Protocol

import numpy as np

from cmtool.errors import MissingInput
from cmtool.label_files import label_file
from cmtool.pictures import MAX_BYTES, SUFFIXES, Size, decode, size_of_file, unread_kinds
from cmtool.user_paths import files_below, is_visible

__all__ = [
    "Fingerprints",
    "FolderStorage",
    "ImageStorage",
    "fingerprint",
    "is_picture",
    "list_some",
    "show_path",
    "without_pictures",
]


ENDS = 4096


class ImageStorage(Protocol):
    """Pictures by number, in the order of their ``names`` (paths with ``/``).

    ``what`` and ``name`` are what messages call the place. ``marks`` has a number for each picture that changes with
    its contents. ``labels`` are those that the place itself gives to pictures, by number, ``text`` is its
    ``dataset.json``, where it has any, which lies in the folder ``labels_in``; ``unused`` are others of that name.
    ``empty`` are first folders without pictures. ``remark`` is one line on what was passed over.
    """

    @property
    def what(self) -> str: ...

    @property
    def name(self) -> str: ...

    @property
    def names(self) -> Sequence[str]: ...

    @property
    def marks(self) -> Sequence[int]: ...

    @property
    def labels(self) -> dict[int, int]: ...

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

    def call(self, index: int) -> str:
        """What messages call a picture."""
        ...

    def size(self, index: int) -> Size:
        """The size of a picture, which need not be decoded for that; BadFile where it is none."""
        ...

    def pixels(self, index: int) -> np.ndarray:
        """uint8 ``[H, W]`` or ``[H, W, 3]``; BadFile where it is damaged."""
        ...


class FolderStorage:
    """The pictures below a folder; links are followed, hidden files and folders of systems passed over."""

    what = "folder"

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
        self.marks = Fingerprints(len(self.files), self._mark)
        labels, self.unused = label_file(files, self.names)
        self.text, self.labels_in = (_start(root / labels), dirname(labels)) if labels else (None, "")
        self.labels = {} if self.text else _from_manifest(root / "manifest.jsonl", self.names)
        self.empty = without_pictures(folders, self.names)
        self.remark = unread_kinds([name for name in files if not is_picture(name)])

    def call(self, index: int) -> str:
        return show_path(str(self.files[index]))

    def _mark(self, index: int) -> int:
        path = self.files[index]
        with path.open("rb") as file:
            return fingerprint(file, 0, path.stat().st_size)

    def size(self, index: int) -> Size:
        return size_of_file(self.files[index], self.call(index))

    def pixels(self, index: int) -> np.ndarray:
        return decode(self.files[index], self.call(index))


class Fingerprints(Sequence[int]):
    """Numbers that are found out when they are asked for."""

    def __init__(self, n: int, find: Callable[[int], int]):
        self.n, self.find = n, find

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> int:  # type: ignore[override]
        if not 0 <= index < self.n:
            raise IndexError(index)
        return self.find(index)


def is_picture(name: str) -> bool:
    """Whether a path is that of a picture that is read, by its suffix, and neither hidden nor in a hidden folder."""
    return PurePosixPath(name).suffix.lower() in SUFFIXES and is_visible(name)


def without_pictures(folders: Sequence[str], pictures: Sequence[str]) -> list[str]:
    """Those of the first folders in which no picture lies."""
    return sorted(set(folders) - {name.partition("/")[0] for name in pictures})


def fingerprint(file: BinaryIO, start: int, size: int) -> int:
    """A number that changes with the size of what lies at ``start``, and with its first and last 4 KB."""
    file.seek(start)
    head = file.read(min(size, ENDS))
    file.seek(start + max(size - ENDS, 0))
    return zlib.crc32(head + file.read(min(size, ENDS)), size % (1 << 32))


def show_path(name: str) -> str:
    """A name as messages show it: what cannot be printed is written out."""
    return name if name.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)


def list_some(names: Sequence[str], most: int = 8) -> str:
    """``a, b, ...``."""
    return ", ".join([*map(show_path, names[:most]), *(["..."] if len(names) > most else [])]) or "nothing"


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_BYTES)


def _from_manifest(path: Path, names: Sequence[str]) -> dict[int, int]:
    """The classes of ``sample``'s own list, ``{"seed": 7, "class": 3, ...}`` a line, where it knows that of each."""
    if not path.is_file():
        return {}
    try:
        lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        found = {f"{line['seed']:08d}.png": line["class"] for line in lines if line["class"] is not None}
    except (ValueError, TypeError, KeyError, RecursionError):
        return {}
    return {i: found[name] for i, name in enumerate(names)} if found.keys() >= set(names) else {}
