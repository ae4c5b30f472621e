"""IDX files, in which MNIST and Fashion-MNIST are published: ``train-images-idx3-ubyte`` and its labels beside it.

Source: the description of the format on the page of the MNIST database (LeCun, Cortes and Burges): two zeros, the type
(8 is uint8), the number of dimensions, each of them in four bytes with the highest first, and the values.
"""

import gzip
import math
import re
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cmtool.datasets.archive_names import whole
from cmtool.datasets.raw_images import ArrayPlace, RawImages
from cmtool.datasets.storage import Choice, list_some, show_path
from cmtool.errors import BadFile, MissingInput, UsageError

__all__ = ["idx_within", "is_idx", "open_idx"]

IMAGES = re.compile(r"(.*)images([-.])idx3-ubyte(\.gz)?")
MAGIC, MOST = b"\0\0\x08", 1 << 30  # bytes of a compressed file, which is in memory as a whole
TEST = ("t10k", "test")


def is_idx(path: Path, start: bytes) -> bool:
    """Whether a file is one of images or labels, by its name or its first bytes."""
    return "-ubyte" in path.name or (start[:3] == MAGIC and start[3:4] in (b"\1", b"\3"))


def idx_within(root: Path, names: Sequence[str]) -> Sequence[Path]:
    """The files of images that a folder holds; of a file and its ``.gz`` the former."""
    found = [name for name in names if IMAGES.fullmatch(name)]
    return [root / name for name in found if not (name.endswith(".gz") and name[:-3] in found)]


def open_idx(paths: Sequence[Path], title: str, choice: Choice) -> ArrayPlace:
    """The images of one part, ``train`` unless ``choice`` or the only file says another, with their labels, if any."""
    chosen = _choose(paths, title, choice.split)
    read = [_read(path, 3) for path in chosen]
    beside = [_labels_beside(path) for path in chosen]
    marks = {path.name: zlib.crc32(values.tobytes()) for path, values in zip(chosen, read, strict=True)}
    labels: list[int] = []
    for path, images in zip(beside, read, strict=True):
        numbers = _read(path, 1) if path else np.empty(0, np.uint8)
        if path and len(numbers) != len(images):
            raise BadFile(f"{show_path(str(path))} has {len(numbers):,} labels of {len(images):,} images")
        labels += numbers.tolist()
    images = RawImages([values[:, None] for values in read], title)
    remark = None if labels else "no labels: there is no file labels-idx1-ubyte beside the images"
    return ArrayPlace(images, title, title, marks, labels if len(labels) == len(images) else (), remark=remark)


def _choose(paths: Sequence[Path], title: str, split: str | None) -> Sequence[Path]:
    if len(paths) == 1 and split is None:
        return paths
    test = [path for path in paths if any(word in path.name for word in TEST)]
    train = [path for path in paths if path not in test]
    chosen = {"train": train, "test": test, "all": [*train, *test]}[split or "train"]
    if not chosen:
        raise MissingInput(f"{title} holds no images of the part {split or 'train'}")
    if len(train) > 1 or len(test) > 1:
        raise UsageError(
            f"{title} holds several data sets: {list_some([path.name for path in paths])}", "name one file of images"
        )
    return chosen


def _labels_beside(path: Path) -> Path | None:
    match = IMAGES.fullmatch(path.name)
    name = f"{match[1]}labels{match[2]}idx1-ubyte" if match else ""
    return next((p for p in (path.with_name(name), path.with_name(f"{name}.gz")) if name and p.is_file()), None)


def _read(path: Path, dimensions: int) -> np.ndarray:
    """The values, uint8 with so many dimensions; those of a file that is not compressed stay on the disk."""
    title, packed, head = show_path(str(path)), path.name.lower().endswith(".gz"), 4 + 4 * dimensions
    with whole(path, "an IDX file"), gzip.open(path) if packed else path.open("rb") as file:
        start = file.read(head)
        if start[:4] != MAGIC + bytes([dimensions]):
            what = "images" if dimensions == 3 else "labels"
            raise BadFile(f"{title} holds no {what}, or is damaged", f"{what} are uint8 in {dimensions} dimensions")
        shape = tuple(int.from_bytes(start[at : at + 4], "big") for at in range(4, head, 4))
        size = math.prod(shape)
        if packed and size > MOST:
            raise BadFile(f"{title} is compressed, and larger than {MOST >> 30} GB", "uncompress it first")
        raw = file.read(size + 1) if packed else b""
    if 0 in shape or size != (len(raw) if packed else path.stat().st_size - head):
        raise BadFile(f"{title} does not hold the {' x '.join(map(str, shape))} values that it says")
    if packed:
        return np.frombuffer(raw, np.uint8).reshape(shape)
    return np.memmap(path, np.uint8, "r", head, shape)
