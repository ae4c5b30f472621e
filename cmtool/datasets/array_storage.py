"""Pictures of an ``.npz`` as OpenAI writes them (``arr_0`` uint8 [N, H, W, C], ``arr_1`` labels) or of an ``.npy``."""

import math
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.lib import format as npy

from cmtool.datasets.archive_storage import whole
from cmtool.datasets.storage import fingerprint, show_path
from cmtool.errors import BadFile
from cmtool.pictures import MAX_PIXELS, Size

__all__ = ["ArrayStorage"]

IMAGES, LABELS = ("arr_0", "samples", "images", "data"), ("arr_1", "labels", "y")
MOST = 1 << 30  # bytes of a compressed array, which has to be in memory as a whole
BLOCK = 1 << 20


class ArrayStorage:
    """Arrays that are stored as they are stay on the disk; compressed ones are read at once, up to 1 GB."""

    what, text, remark = "archive", None, None
    labels_in, unused, empty = "", (), ()

    def __init__(self, path: Path):
        self.path, self.name, self.title = path, show_path(path.name), show_path(str(path))
        with whole(path, f"an {path.suffix.lower()} file"):
            if path.suffix.lower() == ".npy":
                size = path.stat().st_size
                with path.open("rb") as file:
                    self.images, labels, number = self._map(0, size), None, fingerprint(file, 0, size)
            else:
                self.images, labels, number = self._read()
        self._check()
        self.names = [f"{i:08d}" for i in range(len(self.images))]
        self.marks = [number] * len(self.images)
        self.labels = {} if labels is None else dict(enumerate(map(int, self._check_labels(labels))))

    def call(self, index: int) -> str:
        return f"{self.title}:{index}"

    def size(self, index: int) -> Size:
        height, width, *channels = self.images.shape[1:]
        return Size(width, height, channels in ([], [1]))

    def pixels(self, index: int) -> np.ndarray:
        image = np.array(self.images[index])
        return image[..., 0] if image.shape[2:] == (1,) else image

    def _read(self) -> tuple[np.ndarray, np.ndarray | None, int]:
        """Images, labels and the checksum of the images."""
        with zipfile.ZipFile(self.path) as archive:
            names = {name.removesuffix(".npy"): name for name in archive.namelist()}
            if len(names) != len(archive.namelist()):
                raise BadFile(f"{self.title} holds an array twice")
            images, labels = (next((names[key] for key in keys if key in names), None) for keys in (IMAGES, LABELS))
            if images is None:
                raise BadFile(
                    f"{self.title} holds no images, but {', '.join(map(show_path, names)) or 'nothing'}",
                    "images are called arr_0",
                )
            classes = None if labels is None else self._whole(archive, labels)
            info = archive.getinfo(images)
            if info.compress_type != zipfile.ZIP_STORED:
                return self._whole(archive, images), classes, info.CRC
            with archive.open(info) as file:
                while file.read(BLOCK):  # at the end zipfile compares the checksum
                    pass
            start = info.header_offset + _local_header(self.path, info.header_offset)
            return self._map(start, info.file_size), classes, info.CRC

    def _map(self, start: int, size: int) -> np.ndarray:
        """The array that begins with its header at ``start``, left on the disk."""
        with self.path.open("rb") as file:
            file.seek(start)
            shape, fortran, dtype = _describe(file)
            inside = file.tell() - start
        self._agree(shape, dtype, size - inside)
        return np.memmap(self.path, dtype, "r", start + inside, shape, "F" if fortran else "C")

    def _whole(self, archive: zipfile.ZipFile, name: str) -> np.ndarray:
        info = archive.getinfo(name)
        if info.file_size > MOST:
            raise BadFile(
                f"{self.title} is compressed, and {show_path(name)} is larger than {MOST >> 30} GB",
                "write it with np.savez",
            )
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise BadFile(f"{self.title} is packed in a way that is not read", "write it with np.savez")
        with archive.open(info) as file:
            shape, fortran, dtype = _describe(file)  # type: ignore[arg-type]
            self._agree(shape, dtype, info.file_size - file.tell())
            values = np.frombuffer(file.read(), dtype)
        return values.reshape(shape, order="F" if fortran else "C")

    def _agree(self, shape: tuple[int, ...], dtype: np.dtype, size: int) -> None:
        if dtype.hasobject or min(shape, default=1) < 0 or math.prod(shape) * dtype.itemsize != size:
            raise BadFile(f"{self.title} holds no array of numbers, or one of another size than it says")

    def _check(self) -> None:
        shape, dtype = self.images.shape, self.images.dtype
        grey, colour = len(shape) == 3, len(shape) == 4 and shape[3] in (1, 3)
        if dtype != np.uint8 or not (grey or colour) or 0 in shape or (grey and shape[2] == 3):
            raise BadFile(
                f"{self.title} holds {dtype} [{', '.join(map(str, shape))}], which are no images",
                "images are uint8 [N, height, width, 1 or 3]",
            )
        if shape[1] * shape[2] > MAX_PIXELS:
            raise BadFile(f"{self.title} has more than {MAX_PIXELS // 1_000_000} million pixels in an image")

    def _check_labels(self, labels: np.ndarray) -> np.ndarray:
        if labels.shape != self.images.shape[:1] or labels.dtype.kind not in "iu":
            raise BadFile(f"{self.title} holds {len(self.images)} images, but arr_1 is not their labels")
        return labels


def _describe(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, order and type from the header of an array."""
    version = npy.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"npy version {version}")
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that Python 2 wrote it
        return read(file)


def _local_header(path: Path, at: int) -> int:
    """How long the header is that stands before the member at ``at``."""
    with path.open("rb") as file:
        file.seek(at)
        head = file.read(30)
    if head[:4] != b"PK\3\4":
        raise zlib.error("a member is not where the list says")
    return 30 + int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little")
