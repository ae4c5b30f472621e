"""``.npz`` as OpenAI writes samples (``arr_0`` uint8 [N, H, W, C], ``arr_1`` int64 [N]), never whole in memory.

Also read: the key ``samples`` (score_sde, consistency_models_cifar10), grey images [N, H, W], and points, float
[N, D].
"""

import contextlib
import math
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy

from cmtool.errors import BadFile
from cmtool.files.atomic import writing
from cmtool.files.streams.item import Batch
from cmtool.pictures import MAX_BYTES, with_channels

__all__ = ["NpzWriter", "keys", "read_npz"]

IMAGES, LABELS = ("arr_0", "samples"), "arr_1"
DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError, RuntimeError, KeyError)


def keys(path: Path) -> list[str]:
    """The names of the arrays in an ``.npz``, without reading any; BadFile when it is none."""
    with _opened(path) as archive:
        return _keys(archive, path)


def read_npz(path: Path, size: int, channels: int | None = None) -> Iterator[Batch]:
    """Batches of ``size`` images (in ``channels``, where given) or points; BadFile when damaged or something else."""
    with _opened(path) as archive:
        found = _keys(archive, path)
        key = next((key for key in IMAGES if key in found), None)
        if key is None:
            raise BadFile(f"{path} holds no images, but {', '.join(found) or 'nothing'}", "images are called arr_0")
        images = _Rows(archive, key)
        labels = _Rows(archive, LABELS) if LABELS in found else None
        if labels and (labels.n != images.n or labels.shape or labels.dtype.kind not in "iu"):
            raise BadFile(f"{path} holds {images.n} images, but arr_1 is not their labels")
        for start in range(0, images.n, size):
            count = min(size, images.n - start)
            names = [f"{path}:{i}" for i in range(start, start + count)]
            numbers = labels.read(count).astype(np.int64) if labels else None
            yield Batch(names, _arranged(images.read(count), path, channels), numbers)
        for rows in filter(None, (images, labels)):
            rows.end()


class _Rows:
    """The rows of one array in the archive, read one after the other."""

    def __init__(self, archive: zipfile.ZipFile, key: str):
        self.file = archive.open(f"{key}.npy")
        version = npy.read_magic(self.file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"{key} has npy version {version}")
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        (self.n, *self.shape), fortran, self.dtype = read(self.file)
        self.width = math.prod(self.shape) * self.dtype.itemsize
        if self.dtype.hasobject or fortran or not 0 < self.width <= MAX_BYTES:
            raise ValueError(f"{key} is not an array of images, points or labels")

    def read(self, count: int) -> np.ndarray:
        data = self.file.read(count * self.width)
        if len(data) < count * self.width:
            raise EOFError("it is cut short")
        return np.frombuffer(data, self.dtype).reshape(count, *self.shape)

    def end(self) -> None:
        if self.file.read(1):  # at the end of a member, zipfile compares its checksum
            raise ValueError("it is longer than it says")


def _arranged(rows: np.ndarray, path: Path, channels: int | None) -> np.ndarray:
    """[B, H, W] or [B, H, W, C] uint8 to [B, C, H, W]; [B, D] float to float32."""
    if rows.ndim == 2 and rows.dtype.kind == "f":
        return rows.astype(np.float32)
    if rows.dtype != np.uint8 or not (rows.ndim == 3 or (rows.ndim == 4 and rows.shape[3] in (1, 3))):
        shape = ", ".join(["N", *map(str, rows.shape[1:])])
        raise BadFile(
            f"{path} holds {rows.dtype} [{shape}], which are no images", "images are uint8 [N, height, width, 1 or 3]"
        )
    images = np.array(rows[:, None] if rows.ndim == 3 else rows.transpose(0, 3, 1, 2), order="C")
    return with_channels(images, channels) if channels else images


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except DAMAGE as error:
        reason = f": {error}" if str(error) else ""
        raise BadFile(f"{path} is not an .npz file, or is damaged{reason}".replace("\n", " ")) from error


def _keys(archive: zipfile.ZipFile, path: Path) -> list[str]:
    names = [name.removesuffix(".npy") for name in archive.namelist()]
    if not all(name.isprintable() for name in names):
        raise BadFile(f"{path} is not an .npz file, or is damaged")
    if len(set(names)) != len(names):
        raise BadFile(f"{path} holds an array twice")
    return names


class NpzWriter:
    """``arr_0`` [N, H, W, C] (or points float32 [N, D]) and ``arr_1``, as they come: N must be known beforehand."""

    def __init__(self, file: BinaryIO, name: str, n: int, shape: tuple[int, ...], labelled: bool):
        self.name, self.n, self.shape, self.labels = name, n, shape, [] if labelled else None
        self.dtype = np.dtype(np.uint8 if len(shape) == 3 else np.float32)
        self.archive = zipfile.ZipFile(file, "w")
        self.count = 0
        rows = (shape[1], shape[2], shape[0]) if len(shape) == 3 else shape
        with writing(name):
            self.member = self._member("arr_0", (n, *rows), self.dtype)

    def write(self, seeds: Any, images: Any, labels: Any = None) -> None:
        """Write a batch; npz has no place for the seeds, only their order."""
        rows = np.asarray(images, dtype=self.dtype)
        rows = rows.transpose(0, 2, 3, 1) if rows.ndim == 4 else rows
        with writing(self.name):
            self.member.write(np.ascontiguousarray(rows).data)
        self.count += len(rows)
        if self.labels is not None:
            self.labels.extend(np.asarray(labels).tolist())

    def finish(self) -> None:
        """Write the labels and the end of the archive."""
        assert self.count == self.n, f"{self.count} images written, {self.n} announced"
        with writing(self.name):
            self.member.close()
            if self.labels is not None:
                with self._member("arr_1", (self.n,), np.dtype(np.int64)) as member:
                    member.write(np.array(self.labels, dtype=np.int64).data)
            self.archive.close()

    def close(self) -> None:
        """Let go of the archive, finished or not."""
        for part in (self.member, self.archive):
            with contextlib.suppress(OSError, ValueError):
                part.close()

    def _member(self, key: str, shape: tuple[int, ...], dtype: np.dtype) -> Any:
        # without a date, so that equal images give equal files; large members need zip64 from the start
        member = self.archive.open(zipfile.ZipInfo(f"{key}.npy"), "w", force_zip64=True)
        header = {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        npy.write_array_header_1_0(member, header)
        return member
