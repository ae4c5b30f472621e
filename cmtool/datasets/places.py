"""Where pictures lie: a folder here, archives and arrays beside it in ``archives.py`` and ``arrays.py``."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Protocol

import numpy as np

from cmtool.errors import MissingInput
from cmtool.pictures import SUFFIXES, Size, decode, size_of_file, unread_kinds

__all__ = ["FolderPlace", "Place", "is_picture", "shown", "some"]


class Place(Protocol):
    """Pictures by number, in the order of their ``names`` (paths with ``/``).

    ``what`` and ``name`` are what messages call the place. ``marks`` has a number for each picture that changes with
    its contents: bytes or a checksum. ``labels`` are those that the place itself gives to pictures, by number, ``text``
    is its ``dataset.json``, where it has any. ``remark`` is one line on what was passed over.
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


class FolderPlace:
    """The pictures below a folder; links are followed, hidden files passed over."""

    what = "folder"

    def __init__(self, root: Path):
        self.root, self.name = root, shown(root.resolve().name)
        self.files, others = _found(root)
        if not self.files:
            there = sorted(entry.name for entry in root.iterdir())
            raise MissingInput(
                f"there are no images in {root}", f"it holds: {some(there)}; read are {', '.join(SUFFIXES)}"
            )
        self.names = [file.relative_to(root).as_posix() for file in self.files]
        self.marks = _Lazy(len(self.files), lambda i: self.files[i].stat().st_size)
        text = root / "dataset.json"
        self.text = text.read_bytes() if text.is_file() else None
        self.labels = {} if self.text else _from_manifest(root / "manifest.jsonl", self.names)
        self.remark = unread_kinds(others)

    def call(self, index: int) -> str:
        return shown(str(self.files[index]))

    def size(self, index: int) -> Size:
        return size_of_file(self.files[index], self.call(index))

    def pixels(self, index: int) -> np.ndarray:
        return decode(self.files[index], self.call(index))


class _Lazy(Sequence[int]):
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
    path = PurePosixPath(name)
    return path.suffix.lower() in SUFFIXES and not any(part.startswith(".") for part in path.parts)


def shown(name: str) -> str:
    """A name as messages show it: what cannot be printed is written out."""
    return name if name.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)


def some(names: Sequence[str], most: int = 8) -> str:
    """``a, b, ...``."""
    return ", ".join([*map(shown, names[:most]), *(["..."] if len(names) > most else [])]) or "nothing"


def _found(root: Path) -> tuple[list[Path], list[str]]:
    """The pictures in the order of their paths, and the names of other files that are not hidden."""
    files, others, seen = [], [], {root.resolve()}
    for place, folders, names in os.walk(root, followlinks=True):
        # Links are followed, since big data sets are often made of them, but never in a circle.
        folders[:] = [name for name in sorted(folders) if name[0] != "." and not _again(Path(place, name), seen)]
        for name in names:
            if is_picture(name):
                files.append(Path(place, name))
            elif name[0] != ".":
                others.append(name)
    return sorted(files, key=lambda file: file.relative_to(root).as_posix()), others


def _from_manifest(path: Path, names: Sequence[str]) -> dict[int, int]:
    """The classes of ``sample``'s own list, ``{"seed": 7, "class": 3, ...}`` a line, where it knows that of each."""
    if not path.is_file():
        return {}
    try:
        lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        told = {f"{line['seed']:08d}.png": line["class"] for line in lines if line["class"] is not None}
    except (ValueError, TypeError, KeyError, RecursionError):
        return {}
    return {i: told[name] for i, name in enumerate(names)} if told.keys() >= set(names) else {}


def _again(place: Path, seen: set[Path]) -> bool:
    real = place.resolve()
    known = real in seen
    seen.add(real)
    return known
