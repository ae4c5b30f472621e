"""``.npy``: one array, uint8 [N, H, W, C] or points float32 [N, D], and no labels; fits a pipe."""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from cmtool.errors import BadFile
from cmtool.files.streams.arrays import Rows, items
from cmtool.files.streams.item import Item

__all__ = ["read", "read_stream"]


def read(path: Path) -> Iterator[Item]:
    """Its rows; BadFile when damaged or something else."""
    with path.open("rb") as file:
        yield from read_stream(file, str(path))


def read_stream(file: BinaryIO, name: str) -> Iterator[Item]:
    """The rows of an array that comes through ``file``."""
    try:
        yield from items(Rows(file, name), None, name)
    except (EOFError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())
        raise BadFile(f"{name} is not an .npy file, or is damaged: {reason}") from error
