"""Arrays of images, points or labels in numpy's format, row by row.

An array is a header, then row after row of equal width; images are uint8 [N, H, W, C] or grey [N, H, W], points are
float [N, D].
"""

import io
import math
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from numpy.lib import format as npy

from cmtool.errors import BadFile
from cmtool.files.streams.item import Item
from cmtool.pictures import MAX_BYTES, planes

__all__ = ["MAGIC", "Rows", "begins", "blocks", "header", "items", "layout", "row"]

MAGIC = b"\x93NUMPY"
BLOCK = 1 << 17  # bytes that are read at once


class Rows:
    """The ``n`` rows of one array, read one after the other from ``file``; ValueError and EOFError when it is none."""

    def __init__(self, file: BinaryIO, name: str):
        self.file, version = file, npy.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"{name} has npy version {version}")
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        (self.n, *self.shape), fortran, self.dtype = read(file)
        self.width = math.prod(self.shape) * self.dtype.itemsize
        if self.dtype.hasobject or fortran or not 0 < self.width <= MAX_BYTES:
            raise ValueError(f"{name} is not an array of images, points or labels")

    def __iter__(self) -> Iterator[np.ndarray]:
        """Blocks of rows, each 128 KiB or one row."""
        count = max(1, BLOCK // self.width)
        for start in range(0, self.n, count):
            yield self._read(min(count, self.n - start))
        if self.file.read(1):  # at the end of a member, zipfile compares its checksum
            raise ValueError("it is longer than it says")

    def _read(self, count: int) -> np.ndarray:
        data = self.file.read(count * self.width)
        if len(data) < count * self.width:
            raise EOFError("it is cut short")
        return np.frombuffer(data, self.dtype).reshape(count, *self.shape)


def items(rows: Rows, labels: np.ndarray | None, name: str) -> Iterator[Item]:
    """Every row as an item called ``name:i``; BadFile when they are neither images nor points."""
    points = len(rows.shape) == 1 and rows.dtype.kind == "f"
    grey, colour = len(rows.shape) == 2, len(rows.shape) == 3 and rows.shape[2] in (1, 3)
    if not points and (rows.dtype != np.uint8 or not (grey or colour)):
        shape = ", ".join(["N", *map(str, rows.shape)])
        raise BadFile(
            f"{name} holds {rows.dtype} [{shape}], which are no images", "images are uint8 [N, height, width, 1 or 3]"
        )
    i = 0
    for block in rows:
        for one in block:
            source = one.astype(np.float32) if points else planes(one)
            yield Item(f"{name}:{i}", source, None if labels is None else int(labels[i]))
            i += 1


def row(image: np.ndarray) -> bytes:
    """The bytes of a row: uint8 [C, H, W] as [H, W, C], or a point as float32."""
    return image.transpose(1, 2, 0).tobytes() if image.ndim == 3 else image.astype(np.float32).tobytes()


def header(shape: tuple[int, ...], dtype: np.dtype) -> bytes:
    """How an array of ``shape`` begins."""
    file, fields = io.BytesIO(), {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    npy.write_array_header_1_0(file, fields)
    return file.getvalue()


def layout(shape: tuple[int, ...], n: int) -> tuple[bytes, int]:
    """The header of ``n`` images [C, H, W] or points [D], and the bytes of each."""
    image = len(shape) == 3
    rows, dtype = (shape[1], shape[2], shape[0]) if image else shape, np.dtype(np.uint8 if image else np.float32)
    return header((n, *rows), dtype), math.prod(shape) * dtype.itemsize


def begins(file: BinaryIO, at: int, head: bytes) -> bool:
    """Whether ``head`` is what stands at ``at``."""
    file.seek(at)
    return file.read(len(head)) == head


def blocks(file: BinaryIO, size: int) -> Iterator[bytes]:
    """The next ``size`` bytes, piece by piece."""
    for start in range(0, size, BLOCK):
        yield file.read(min(BLOCK, size - start))
