"""Reading at given places of a file, by any number of threads and forked processes at once."""

import os
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import overload

import numpy as np

try:
    from os import pread
except ImportError:  # Windows
    pread = None

__all__ = ["Names", "PositionalFile"]

KEPT = 256  # files of one data set that stay open, of which systems allow 1,024 at least


class PositionalFile:
    """A file that is read at given places; no reader moves a position that another one sees.

    It stays open unless ``kept`` is False or the system cannot read at a place (Windows): then each reading opens it.
    """

    def __init__(self, path: Path, kept: bool = True):
        self.path, self.kept = path, kept
        self.size = path.stat().st_size
        self._open: int | None = None
        if kept and pread is not None:
            self._open = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
            weakref.finalize(self, os.close, self._open)

    def __reduce__(self) -> tuple[type, tuple[Path, bool]]:
        return PositionalFile, (self.path, self.kept)

    def read(self, start: int, size: int) -> bytes:
        """The bytes from ``start`` on, fewer than ``size`` where the file ends."""
        if self._open is None or pread is None:
            with self.path.open("rb", buffering=0) as file:
                file.seek(start)
                return file.read(size)
        data = pread(self._open, size, start)
        while len(data) < size and (more := pread(self._open, size - len(data), start + len(data))):
            data += more
        return data


class Names(Sequence[str]):
    """Many names in one piece of memory, a byte a letter, instead of an object each."""

    def __init__(self, names: Iterator[str]):
        ends, held = [0], bytearray()
        for name in names:
            held += name.encode("utf-8", "surrogatepass")
            ends.append(len(held))
        self._ends, self._held = np.array(ends, np.int64), bytes(held)

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        i = range(len(self))[index]
        return self._held[self._ends[i] : self._ends[i + 1]].decode("utf-8", "surrogatepass")
