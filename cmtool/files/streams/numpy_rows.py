"""Arrays of images, points or labels in numpy's format, row by row.

An array is a header, then row after row of equal width; images are uint8 [N, H, W, C] or grey [N, H, W], one picture
alone is [H, W, C], points are float [N, D].
"""

import io
import math
import re
from collections.abc import Iterable, Iterator
from typing import BinaryIO

import numpy as np
from numpy.lib import format as npy

from cmtool.errors import BadFile
from cmtool.files.streams.item import Item
from cmtool.pictures import MAX_BYTES, planes

__all__ = ["MAGIC", "Rows", "begins", "blocks", "header", "items", "layout", "row"]

MAGIC = b"\x93NUMPY"
BLOCK = 1 << 17  # bytes that are read at once
LONGEST = 10_000  # bytes of a header, as numpy has it
TURNED = 1 << 29  # bytes of an array in Fortran order, which has to be in memory as a whole
DESCR = re.compile(r"""['"]descr['"]\s*:\s*['"]([<>|=]?[a-zA-Z?]\d{0,2})['"]""")
ORDER = re.compile(r"""['"]fortran_order['"]\s*:\s*(True|False)""")
SHAPE = re.compile(r"""['"]shape['"]\s*:\s*\(((?:\s*\d{1,18}L?\s*,?)*)\s*\)""")


class Rows:
    """The ``n`` rows of one array, read one after the other from ``file``; ValueError and EOFError when it is none.

    uint8 [H, W, 1 or 3] is one row.
    """

    def __init__(self, file: BinaryIO, name: str):
        self.file, self.name = file, name
        self.dtype, self.fortran, shape = _header(file, name)
        if self.dtype.hasobject or not shape:
            raise ValueError(f"{name} is not an array of images, points or labels")
        self.whole = shape
        alone = self.dtype == np.uint8 and len(shape) == 3 and shape[2] in (1, 3)
        self.n, *self.shape = (1, *shape) if alone else shape
        self.width = math.prod(self.shape) * self.dtype.itemsize
        if not 0 < self.width <= MAX_BYTES:
            raise ValueError(f"{name} is not an array of images, points or labels")
        if self.fortran and self.n * self.width > TURNED:
            raise BadFile(
                f"{name} is in Fortran order and larger than {TURNED >> 20} MB",
                "save it row by row: numpy.save(path, numpy.ascontiguousarray(array))",
            )

    def __iter__(self) -> Iterator[np.ndarray]:
        """Blocks of rows, each 128 KiB or one row."""
        count = max(1, BLOCK // self.width)
        turned = None
        if self.fortran:
            turned = self._read(self.n).reshape(-1).reshape(self.whole, order="F").reshape(self.n, *self.shape)
        for start in range(0, self.n, count):
            stop = min(start + count, self.n)
            yield self._read(stop - start) if turned is None else np.ascontiguousarray(turned[start:stop])
        if self.file.read(1):  # at the end of a member, zipfile compares its checksum
            raise ValueError("it is longer than it says")

    def _read(self, count: int) -> np.ndarray:
        data, size = bytearray(), count * self.width
        while len(data) < size and (block := self.file.read(min(size - len(data), 1 << 24))):
            data += block  # no more than comes is set aside
        if len(data) < size:
            raise EOFError("it is cut short")
        return np.frombuffer(data, self.dtype).reshape(count, *self.shape)


def _header(file: BinaryIO, name: str) -> tuple[np.dtype, bool, tuple[int, ...]]:
    """Type, order and shape, read as text: numpy takes the header for a program's and may fail in many ways."""
    version = npy.read_magic(file)
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise ValueError(f"{name} has npy version {version}")
    counted = 2 if version == (1, 0) else 4
    size = int.from_bytes(file.read(counted), "little")
    if size > LONGEST:
        raise ValueError(f"{name} has a header of {size:,} bytes")
    text = file.read(size).decode("utf-8")
    if len(text.encode()) < size:
        raise EOFError("it is cut short")
    found = [pattern.search(text) for pattern in (DESCR, ORDER, SHAPE)]
    if None in found:
        raise ValueError(f"{name} is not an array of images, points or labels")
    kind, order, shape = (match[1] for match in found if match)
    return np.dtype(kind), order == "True", tuple(int(digits) for digits in re.findall(r"\d+", shape))


def items(rows: Rows, labels: Iterable[int] | None, name: str) -> Iterator[Item]:
    """Every row as an item called ``name:i``; BadFile when they are neither images nor points."""
    points = len(rows.shape) == 1 and rows.dtype.kind == "f"
    grey = len(rows.shape) == 2 and rows.shape[1] not in (2, 4)
    colour = len(rows.shape) == 3 and rows.shape[2] in (1, 3)
    if not points and (rows.dtype != np.uint8 or not (grey or colour)):
        shape = ", ".join(["N", *map(str, rows.shape)])
        raise BadFile(f"{name} holds {rows.dtype} [{shape}], which are no images", _hint(rows))
    i, given = 0, iter(labels) if labels is not None else None
    for block in rows:
        for one in block:
            source = one.astype(np.float32) if points else planes(one)
            yield Item(f"{name}:{i}", source, None if given is None else next(given), number=i)
            i += 1


def _hint(rows: Rows) -> str:
    """What would make images of these rows."""
    if rows.dtype == np.uint8 and len(rows.shape) == 3 and rows.shape[0] in (1, 3):
        return "channels come last: array.transpose(0, 2, 3, 1)"
    if rows.dtype.kind == "f":
        return "images are uint8 [N, height, width, 1 or 3]; of numbers in [0, 1]: (x * 255).round().astype('uint8')"
    return "images are uint8 [N, height, width, 1 or 3]"


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
    """The next ``size`` bytes, block by block."""
    for start in range(0, size, BLOCK):
        yield file.read(min(BLOCK, size - start))
