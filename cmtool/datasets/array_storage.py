"""Pictures of an ``.npz`` as OpenAI writes them (``arr_0`` uint8 [N, H, W, C], ``arr_1`` labels) or of an ``.npy``."""

import math
import warnings
import zipfile
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.lib import format as npy

from cmtool.datasets.archive_names import whole
from cmtool.datasets.positional import PositionalFile
from cmtool.datasets.raw_images import ArrayPlace, Numbers, RawImages
from cmtool.datasets.storage import fingerprint, show_path
from cmtool.datasets.zip_storage import member_start
from cmtool.errors import BadFile

__all__ = ["ArrayFile", "open_arrays"]

IMAGES, LABELS = ("arr_0", "samples", "images", "data"), ("arr_1", "labels", "y")
MOST = 1 << 30  # bytes of a compressed array, which has to be in memory as a whole
BLOCK, HEADER = 1 << 20, 30


def open_arrays(path: Path) -> ArrayPlace:
    """The pictures of an npz or npy; arrays that are stored as they are stay on the disk."""
    file = ArrayFile(path)
    with whole(path, f"an {path.suffix.lower()} file"):
        images, labels, number = file.read_single() if path.suffix.lower() == ".npy" else _read(file)
    found = RawImages([_planes(images, file.title)], file.title)
    if labels is not None and (labels.shape != images.shape[:1] or labels.dtype.kind not in "iu"):
        raise BadFile(f"{file.title} holds {len(images)} images, but arr_1 is not their labels")
    marks = dict.fromkeys(
        Numbers(len(found)), number
    )  # by each number, as runs have known them since the first version
    return ArrayPlace(found, file.title, show_path(path.name), marks, [] if labels is None else labels.tolist())


Found = tuple[np.ndarray, np.ndarray | None, int]  # images, labels, a number that changes with the images


def _read(file: "ArrayFile") -> Found:
    names = file.names()
    images, labels = (next((key for key in keys if key in names), None) for keys in (IMAGES, LABELS))
    if images is None:
        raise BadFile(
            f"{file.title} holds no images, but {', '.join(map(show_path, names)) or 'nothing'}",
            "images are called arr_0",
        )
    classes = None if labels is None else file.read(labels)[0]
    pixels, checksum = file.read(images)
    return pixels, classes, checksum


def _planes(images: np.ndarray, title: str) -> np.ndarray:
    """A view ``[N, C, H, W]``; BadFile for what are no images."""
    shape, dtype = images.shape, images.dtype
    grey, colour = len(shape) == 3, len(shape) == 4 and shape[3] in (1, 3)
    if dtype != np.uint8 or not (grey or colour) or 0 in shape or (grey and shape[2] == 3):
        raise BadFile(
            f"{title} holds {dtype} [{', '.join(map(str, shape))}], which are no images",
            "images are uint8 [N, height, width, 1 or 3]",
        )
    return images[:, None] if grey else images.transpose(0, 3, 1, 2)


class ArrayFile:
    """The arrays of an npz or npy, read by hand: nothing is unpickled, and what is stored as it is stays on the disk.

    Compressed arrays are read at once, up to 1 GB. Called within ``whole``, since a damaged file raises anything.
    """

    def __init__(self, path: Path):
        self.path, self.title = path, show_path(str(path))

    def names(self) -> list[str]:
        """The arrays of an npz; BadFile where one is there twice."""
        with zipfile.ZipFile(self.path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
        if len(set(names)) != len(names):
            raise BadFile(f"{self.title} holds an array twice")
        return names

    def shape(self, name: str) -> tuple[int, ...]:
        """That of an array of an npz, by its header alone."""
        with zipfile.ZipFile(self.path) as archive, archive.open(_member(archive, name)) as file:
            return _describe(file)[0]  # type: ignore[arg-type]

    def read_single(self) -> Found:
        """The array of an npy."""
        file = PositionalFile(self.path, kept=False)
        return self._map(0, file.size), None, fingerprint(file, 0, file.size)

    def read(self, name: str) -> tuple[np.ndarray, int]:
        """An array of an npz, and its checksum, which was compared up to 1 GB."""
        with zipfile.ZipFile(self.path) as archive:
            info = archive.getinfo(_member(archive, name))
            if info.compress_type != zipfile.ZIP_STORED:
                return self._whole(archive, info), info.CRC
            if info.file_size <= MOST:  # of more, reading it all would take minutes
                with archive.open(info) as file:
                    while file.read(BLOCK):  # at the end zipfile compares the checksum
                        pass
        head = PositionalFile(self.path, kept=False).read(info.header_offset, HEADER)
        return self._map(info.header_offset + member_start(head), info.file_size), info.CRC

    def _map(self, start: int, size: int) -> np.ndarray:
        """The array that begins with its header at ``start``, left on the disk."""
        with self.path.open("rb") as file:
            file.seek(start)
            shape, fortran, dtype = _describe(file)
            inside = file.tell() - start
        self._agree(shape, dtype, size - inside)
        return np.memmap(self.path, dtype, "r", start + inside, shape, "F" if fortran else "C")

    def _whole(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
        if info.file_size > MOST:
            raise BadFile(
                f"{self.title} is compressed, and {show_path(info.filename)} is larger than {MOST >> 30} GB",
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


def _member(archive: zipfile.ZipFile, name: str) -> str:
    return name if name in archive.namelist() else f"{name}.npy"


def _describe(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, order and type from the header of an array."""
    version = npy.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"npy version {version}")
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that Python 2 wrote it
        return read(file)
