"""``.npy``: one array, uint8 [N, H, W, C] or points float32 [N, D], and no labels; fits a pipe."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from cmtool.errors import report_damage
from cmtool.files.streams.item import Item
from cmtool.files.streams.names import SkippedFiles, check_kind, peek
from cmtool.files.streams.numpy_rows import Rows, begins, items, layout, row

__all__ = ["NpySink", "read", "read_stream"]


def read(path: Path, passed: SkippedFiles) -> Iterator[Item]:
    """Its rows; BadFile when damaged or something else."""
    with path.open("rb") as file:
        check_kind(peek(file), str(path), "a numpy array")
        yield from read_stream(file, str(path))


def read_stream(file: BinaryIO, name: str) -> Iterator[Item]:
    """The rows of an array that comes through ``file``."""
    with report_damage(name, "is not an .npy file, or is damaged"):
        yield from items(Rows(file, name), None, name)


class NpySink:
    """Rows as they come: N must be known beforehand."""

    def __init__(self, file: BinaryIO, shape: tuple[int, ...], n: int, labelled: bool):
        self.file, self.n, (self.head, self.width) = file, n, layout(shape, n)
        self.count = 0

    def begin(self) -> None:
        self.file.write(self.head)

    def prepare(self, seed: int, image: np.ndarray) -> bytes:
        return row(image)

    def add(self, seed: int, data: bytes, label: int | None) -> None:
        self.file.write(data)
        self.count += 1

    def finish(self) -> None:
        assert self.count == self.n, f"{self.count} images written, {self.n} announced"

    def keep(self, seeds: Sequence[int], labels: Sequence[int | None]) -> int:
        size = self.file.seek(0, 2)
        if begins(self.file, 0, self.head):
            self.count = min((size - len(self.head)) // self.width, len(seeds))
        self.file.seek(len(self.head) + self.count * self.width if self.count else 0)
        self.file.truncate()
        if not self.count:
            self.begin()
        return self.count

    def payloads(self) -> Iterator[bytes]:
        self.file.seek(len(self.head))
        return (self.file.read(self.width) for _ in range(self.n))
