"""``.npz`` as OpenAI writes samples (``arr_0`` uint8 [N, H, W, C], ``arr_1`` int64 [N]), never whole in memory.

Also read: the key ``samples`` (score_sde, consistency_models_cifar10), grey images [N, H, W], and points, float
[N, D].
"""

import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from cmtool.errors import BadFile
from cmtool.files.streams.item import Item
from cmtool.files.streams.labels import whole_label
from cmtool.files.streams.names import SkippedFiles, safe_member
from cmtool.files.streams.numpy_rows import Rows, begins, blocks, header, items, layout, row
from cmtool.files.streams.zip import PLAIN, check_members, open_zip
from cmtool.files.streams.zip_writer import Entry, ZipWriter

__all__ = ["NpzSink", "holds_images", "keys", "read"]

IMAGES, LABELS = ("arr_0", "samples"), "arr_1"


def keys(path: Path) -> list[str]:
    """The names of the arrays in an ``.npz``, without reading any; BadFile when it is none."""
    with open_zip(path, "an .npz file") as archive:
        return _keys(archive, path)


def holds_images(path: Path) -> bool:
    """Whether its images are called as those that are read here; BadFile when it is none."""
    return bool(set(IMAGES) & set(keys(path)))


def read(path: Path, passed: SkippedFiles) -> Iterator[Item]:
    """Its images or points; BadFile when damaged or something else."""
    with open_zip(path, "an .npz file") as archive:
        found = _keys(archive, path)
        check_members(archive)
        key = next((key for key in IMAGES if key in found), None)
        if key is None:
            raise BadFile(f"{path} holds no images, but {', '.join(found) or 'nothing'}", "images are called arr_0")
        images = _rows(archive, key)
        labels = _labels(archive, images, path) if LABELS in found else None
        yield from items(images, labels, str(path))


def _rows(archive: zipfile.ZipFile, key: str) -> Rows:
    info = archive.getinfo(f"{key}.npy")
    if info.compress_type not in PLAIN:
        raise ValueError(f"{key} is compressed in a way that .npz has not")
    return Rows(cast(BinaryIO, archive.open(info)), key)


def _labels(archive: zipfile.ZipFile, images: Rows, path: Path) -> Iterator[int]:
    """One after the other, as the images come."""
    rows = _rows(archive, LABELS)
    if rows.n != images.n or rows.shape or rows.dtype.kind not in "iu":
        raise BadFile(f"{path} holds {images.n} images, but arr_1 is not their labels")
    return (whole_label(label, f"{path}:arr_1") for block in rows for label in block.tolist())


def _keys(archive: zipfile.ZipFile, path: Path) -> list[str]:
    names = [safe_member(name, str(path)).removesuffix(".npy") for name in archive.namelist()]
    if len(set(names)) != len(names):
        raise BadFile(f"{path} holds an array twice")
    return names


class NpzSink:
    """``arr_0`` [N, H, W, C] (or points float32 [N, D]) as it comes, then ``arr_1``: N must be known beforehand.

    npz has no place for the seeds, only their order.
    """

    def __init__(self, file: BinaryIO, shape: tuple[int, ...], n: int, labelled: bool):
        self.file, self.n, self.labelled = file, n, labelled
        self.archive, self.head, self.width = ZipWriter(file), *layout(shape, n)
        self.labels: list[int | None] = []
        self.images, self.crc = Entry(b"", 0, 0, 0, 0), 0

    def begin(self) -> None:
        self.images = self.archive.begin("arr_0.npy", len(self.head) + self.n * self.width)
        self.archive.write(self.head)
        self.crc = zlib.crc32(self.head)

    def prepare(self, seed: int, image: np.ndarray) -> bytes:
        return row(image)

    def add(self, seed: int, data: bytes, label: int | None) -> None:
        self.archive.write(data)
        self.crc = zlib.crc32(data, self.crc)
        self.labels.append(label)

    def finish(self) -> None:
        """The checksum of the images, the labels and the end of the archive."""
        assert len(self.labels) == self.n, f"{len(self.labels)} images written, {self.n} announced"
        self.archive.close(self.images, self.crc)
        if self.labelled:
            labels = np.array(self.labels, dtype=np.int64)
            self.archive.put("arr_1.npy", header(labels.shape, labels.dtype) + labels.tobytes())
        self.archive.finish()

    def keep(self, seeds: Sequence[int], labels: Sequence[int | None]) -> int:
        entry, end = self.archive.header(), self.file.seek(0, 2)
        if (
            not entry
            or entry.size != len(self.head) + self.n * self.width
            or not begins(self.file, entry.start, self.head)
        ):
            self.archive.take_up([], 0)
            self.begin()
            return 0
        first = entry.start + len(self.head)
        kept = min((end - first) // self.width, len(seeds))
        self.images, self.labels = entry, list(labels[:kept])
        self.file.seek(entry.start)
        self.crc = 0
        for data in blocks(self.file, len(self.head) + kept * self.width):
            self.crc = zlib.crc32(data, self.crc)
        self.archive.take_up([entry], first + kept * self.width)
        return kept

    def payloads(self) -> Iterator[bytes]:
        entry = self.archive.header()
        assert entry
        self.file.seek(entry.start + len(self.head))
        return (self.file.read(self.width) for _ in range(self.n))
