"""LMDB databases as LSUN is published: a key for each picture, whose value is the file of the picture.

Source: the scripts of LSUN (Yu et al. 2015, arXiv 1506.03365), and the documentation of py-lmdb.
"""

import os
import zlib
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from cmtool.datasets.archive_names import whole
from cmtool.datasets.lmdb_pages import check_pages
from cmtool.datasets.per_process import PerProcess
from cmtool.datasets.positional import Names
from cmtool.datasets.storage import show_path
from cmtool.errors import BadFile, MissingAsset
from cmtool.pictures import MAX_BYTES, READABLE_KINDS, Size, decode, kind_of, size_from_start, size_of_file

__all__ = ["LmdbStorage", "is_lmdb", "lmdb_within"]

MAGIC = b"\xde\xc0\xef\xbe"  # of the first page, behind its 16 bytes of header
LOOKS = (64, 1 << 12, 1 << 16)  # bytes of a picture that mostly tell its size, of a PNG the first of them


def is_lmdb(path: Path, start: bytes) -> bool:
    """Whether a file is that of a database."""
    return start[16:20] == MAGIC or path.name.lower().endswith((".mdb", ".lmdb"))


def lmdb_within(root: Path, names: Sequence[str]) -> Sequence[Path]:
    """The file of a database that is a folder."""
    return [root / "data.mdb"] if "data.mdb" in names else ()


class LmdbStorage:
    """The pictures of a database, in the order of their keys; it is opened for reading, and no lock file is written.

    Values that are no pictures are counted and passed over. MissingAsset without py-lmdb; BadFile for a database that
    is damaged or cut short.
    """

    what, rows, labels, text = "LMDB", None, (), None
    labels_in, unused, empty = "", (), ()
    class_names: Mapping[int, str] = {}

    def __init__(self, path: Path, name: str):
        self.path, self.name = path, show_path(name)
        self._handle = PerProcess(partial(_handle, path))
        self._broken: BadFile | None = None  # what is wrong with the first picture that has no size
        with whole(path, "an LMDB database"):
            self.names, self._sizes, number, others = self._look()
        if not len(self.names):
            raise BadFile(
                f"there are no images in {show_path(str(path))}", f"it holds {others:,} values of other kinds"
            )
        self.remark = f"{others:,} values are no images" if others else None
        self.marks = {path.name: number}

    def call(self, index: int) -> str:
        return show_path(f"{self.path}:{self.names[index]}")

    def size(self, index: int) -> Size:
        return _size(self._value(index), self.call(index))

    def sizes(self) -> Collection[Size]:
        if self._broken:
            raise self._broken
        return self._sizes

    def pixels(self, index: int) -> np.ndarray:
        return decode(self._value(index), self.call(index))

    def _value(self, index: int) -> bytes:
        with whole(self.path, "an LMDB database"), self._handle.get().database.begin() as reading:
            found = reading.get(self.names[index].encode("latin1"))
        if found is None:
            raise BadFile(f"{self.call(index)} is gone", "the database was changed while it was read")
        return found

    def _look(self) -> tuple[Names, set[Size], int, int]:
        """Keys, sizes, a number that changes with all of it, and how many values are no pictures."""
        keys, sizes, number, others = [], set(), 0, 0
        with self._handle.get().database.begin(buffers=True) as reading:
            for key, value in reading.cursor():
                start = bytes(value[: LOOKS[0]])
                if kind_of(start) not in READABLE_KINDS:
                    others += 1
                    continue
                keys.append(bytes(key).decode("latin1"))
                try:
                    sizes.add(_size(value, show_path(f"{self.path}:{keys[-1]}")))
                except BadFile as error:
                    self._broken = self._broken or error
                number = zlib.crc32(bytes(key) + len(value).to_bytes(8, "little") + start, number)
        return Names(iter(keys)), sizes, number, others


def _size(value: Any, title: str) -> Size:
    if len(value) > MAX_BYTES:
        raise BadFile(f"{title} is larger than {MAX_BYTES // 1_000_000} MB")
    for most in LOOKS:
        if size := size_from_start(bytes(value[:most])):
            return size
    return size_of_file(bytes(value), title)


class _Handle:
    """An open database; the library opens a file once in a process, so all data sets of a file share it."""

    def __init__(self, path: Path):
        try:
            import lmdb
        except ImportError:
            raise MissingAsset(
                f"{show_path(str(path))} is read with lmdb, which is not installed", "pip install 'cmtool[lmdb]'"
            ) from None
        self.state = _state(path)
        with whole(path, "an LMDB database"):
            check_pages(path)
            self.database = lmdb.open(
                str(path), subdir=False, readonly=True, lock=False, create=False, readahead=False, meminit=False
            )


OPEN: WeakValueDictionary[tuple[int, str], _Handle] = WeakValueDictionary()


def _handle(path: Path) -> _Handle:
    key = (os.getpid(), str(path.resolve()))
    found = OPEN.get(key)
    if found is None:
        for (process, _), inherited in list(OPEN.items()):
            if process != key[0]:  # of the process that this one was forked from, where it stays open
                inherited.database.close()
        found = OPEN[key] = _Handle(path)
    elif found.state != _state(path):  # which pages it has now was not checked
        raise BadFile(f"{show_path(str(path))} was changed while it was read", "begin again")
    return found


def _state(path: Path) -> tuple[int, ...]:
    """What changes when a file is written anew."""
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns
