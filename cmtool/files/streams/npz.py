"""``.npz`` as OpenAI writes samples (``arr_0`` uint8 [N, H, W, C], ``arr_1`` int64 [N]), never whole in memory.

Also read: the key ``samples`` (score_sde, consistency_models_cifar10), grey images [N, H, W], and points, float
[N, D].
"""

import contextlib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.lib import format as npy

from cmtool.errors import BadFile
from cmtool.files.atomic import writing
from cmtool.files.streams.arrays import Rows, items
from cmtool.files.streams.item import Item
from cmtool.files.streams.zip import opened

__all__ = ["NpzWriter", "keys", "read"]

IMAGES, LABELS = ("arr_0", "samples"), "arr_1"


def keys(path: Path) -> list[str]:
    """The names of the arrays in an ``.npz``, without reading any; BadFile when it is none."""
    with opened(path, "an .npz file") as archive:
        return _keys(archive, path)


def read(path: Path) -> Iterator[Item]:
    """Its images or points; BadFile when damaged or something else."""
    with opened(path, "an .npz file") as archive:
        found = _keys(archive, path)
        key = next((key for key in IMAGES if key in found), None)
        if key is None:
            raise BadFile(f"{path} holds no images, but {', '.join(found) or 'nothing'}", "images are called arr_0")
        images = _rows(archive, key)
        labels = _labels(archive, images.n, path) if LABELS in found else None
        yield from items(images, labels, str(path))


def _rows(archive: zipfile.ZipFile, key: str) -> Rows:
    return Rows(cast(BinaryIO, archive.open(f"{key}.npy")), key)


def _labels(archive: zipfile.ZipFile, n: int, path: Path) -> np.ndarray:
    """All of them, [N]: 8 bytes an image."""
    rows = _rows(archive, LABELS)
    if rows.n != n or rows.shape or rows.dtype.kind not in "iu":
        raise BadFile(f"{path} holds {n} images, but arr_1 is not their labels")
    return np.concatenate([np.zeros(0, np.int64), *rows]).astype(np.int64)


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
