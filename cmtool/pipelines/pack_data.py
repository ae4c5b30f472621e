"""A data set written into one file, image by image: a zip as EDM packs it, a tar, an npz or an npy."""

import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from cmtool.datasets import Dataset
from cmtool.errors import WriteFailed
from cmtool.files.atomic import replace_folder
from cmtool.files.images import check_stream
from cmtool.files.streams.formats import FORMATS
from cmtool.files.streams.sink import Writer
from cmtool.files.streams.zip import ZipSink
from cmtool.pictures import encode
from cmtool.pipelines.picture_fingerprint import PictureList, digest
from cmtool.training.memory import reading_threads
from cmtool.training.read_ahead import map_ahead

__all__ = ["PackedData", "check_room", "estimate_bytes", "pack_data"]

PIECE = 1 << 23  # bytes of pixels of a task, of which a thread has two
CHUNK = 64  # images of a task, at most
LOOKED_AT = 32  # images that are encoded to tell how large the file will be
MEMBER = {".zip": 200, ".tar": 1024 + 256}  # bytes beside a picture: headers, the line of its label, rows of zeros
LABEL = 1024  # bytes of a label in a tar


@dataclass(frozen=True)
class PackedData:
    """What was written."""

    images: int
    bytes: int
    fingerprint: str


def pack_data(
    dataset: Dataset,
    target: Path,
    threads: int | None = None,
    written: Callable[[int], object] = lambda n: None,
) -> PackedData:
    """Write all items, with their labels, in their order; the file appears when all is well.

    Names are ``00000/img00000000.png`` and so on in a .zip, with labels and the names of classes in ``dataset.json``;
    ``00000000.png`` and ``.cls`` in a .tar; ``arr_0`` and ``arr_1`` in an .npz. The bytes depend on the items and
    labels alone. ``written`` is called with how many were read. UsageError for another suffix; BadFile for an item that
    is damaged; WriteFailed.
    """
    n, shape, labelled = len(dataset), tuple(dataset.shape), bool(dataset.classes)
    check_stream(target, shape)
    make_sink = FORMATS[target.suffix.lower()].sink
    assert make_sink
    known, threads = PictureList(n), threads or reading_threads()

    def read(numbers: Sequence[int]) -> tuple[Sequence[int], np.ndarray, Sequence[int | None], list[bytes]]:
        items, found = dataset.batch(list(numbers))
        pixels = torch.as_tensor(items).numpy()
        labels = [None] * len(pixels) if found is None else torch.as_tensor(found).tolist()
        return numbers, pixels, labels, [digest(one) for one in pixels]

    with replace_folder(target) as file:
        sink = make_sink(file, shape, n, labelled)
        if isinstance(sink, ZipSink) and tuple(dataset.classes) != tuple(map(str, range(len(dataset.classes)))):
            sink.classes = dataset.classes
        writer = Writer(sink, str(target), file.flush)
        try:
            writer.begin()
            with closing(map_ahead(read, _parts(dataset), 2 * threads, threads)) as found:
                for numbers, images, labels, digests in found:
                    writer.write(numbers, images, labels if labelled else None)
                    for number, one, label in zip(numbers, digests, labels, strict=True):
                        known.add(number, one, label)
                    written(numbers[-1] + 1)
            writer.finish()
        finally:
            writer.close()
        size = file.tell()
    return PackedData(n, size, known.fingerprint())


def estimate_bytes(dataset: Dataset, target: Path) -> int:
    """About how large the file will be, by some of the images; exact but for headers of .npz and .npy."""
    n, suffix = len(dataset), target.suffix.lower()
    if suffix not in MEMBER:
        return n * (math.prod(dataset.shape) * (1 if len(dataset.shape) == 3 else 4) + 8 * bool(dataset.classes))
    some = range(0, n, max(1, n // LOOKED_AT))
    mean = sum(len(encode(torch.as_tensor(dataset[i][0]).numpy(), level=1)) for i in some) / len(some)
    return round(n * (mean + MEMBER[suffix] + LABEL * (suffix == ".tar" and bool(dataset.classes))))


def check_room(target: Path, needed: int) -> None:
    """WriteFailed where the disk of ``target``, whose folder need not be there yet, has less than ``needed`` bytes."""
    folder = target.absolute().parent
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < needed:
        sizes = f"it takes about {needed / 1e6:,.1f} MB, and {free / 1e6:,.1f} MB are free"
        raise WriteFailed(f"there is not enough room for {target}: {sizes}", "free some space, or write elsewhere")


def _parts(dataset: Dataset) -> Iterator[range]:
    """The numbers of the items in pieces whose pixels stay small."""
    every, size = range(len(dataset)), max(1, min(CHUNK, PIECE // max(1, math.prod(dataset.shape))))
    return (every[at : at + size] for at in range(0, len(every), size))
