"""``folder``: the images of a folder and of the folders in it, of an archive, or of several archives."""

import zlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from cmtool.datasets import Dataset
from cmtool.datasets.fit import CROPS, SIZE, choose_size, fit
from cmtool.datasets.labels import LABELS, LabelledPictures, find_labels
from cmtool.datasets.places import open_storage
from cmtool.datasets.storage import Choice, ImageStorage
from cmtool.options.plugin_option import Option
from cmtool.options.types import Check
from cmtool.pictures import planes, with_channels

__all__ = ["Folder", "folder"]

SPLITS = ("train", "test", "all")
SIZE_HELP = "side in pixels, or height x width such as 48x64; the short side of the images, where they agree on it"
CHANNELS = Check(lambda channels: channels in (1, 3), "1 or 3")
SPLIT_HELP = "which part of a data set that comes in parts [train]"


class Folder(Dataset):
    """Images uint8 [channels, height, width], read when they are asked for, by any number of threads.

    ``remarks`` are lines on what was passed over, ``inventory`` has a number for each file that changes with it, and
    one for the labels.
    """

    thread_safe = True

    def __init__(self, place: ImageStorage, known: LabelledPictures, shape: tuple[int, int, int], crop: str):
        self.place, self.crop = place, crop
        self.shape: tuple[int, int, int] = shape
        self.labels, self.classes = known.labels, known.classes
        self.remarks = (*known.remarks, *([f"{place.name}: {place.remark}"] if place.remark else []))
        count = len(place.names)
        self.notice = f"{count} images of the {place.what} '{place.name}', of unknown origin and licence"

    @property
    def inventory(self) -> Mapping[str, int]:
        return self._inventory

    @cached_property
    def _inventory(self) -> Mapping[str, int]:
        labels = zlib.crc32(np.array(self.labels, np.int64).tobytes()) if self.labels else 0
        return {**self.place.marks, "labels": labels}

    @cached_property
    def _numbers(self) -> Tensor | None:
        return None if self.labels is None else torch.tensor(self.labels)

    def __len__(self) -> int:
        return len(self.place.names)

    def __getitem__(self, index: int, /) -> tuple[Tensor, int | None]:
        """BadFile where the image is damaged."""
        index = range(len(self))[index]
        image = self._fit(self.place.pixels(index))
        return torch.from_numpy(image), None if self.labels is None else self.labels[index]

    def batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        """Images uint8 [B, C, H, W] and labels int64 [B]; arrays of this very size are copied at once."""
        wanted = [range(len(self))[i] for i in indices]
        return self._images(wanted), None if self._numbers is None else self._numbers[wanted]

    def _images(self, wanted: Sequence[int]) -> Tensor:
        if self.place.rows is None:
            found = {i: self._fit(self.place.pixels(i)) for i in sorted(set(wanted))}  # in the order of the place
            return torch.from_numpy(np.stack([found[i] for i in wanted]))
        rows = self.place.rows(wanted)
        if rows.shape[1:] != self.shape:
            rows = np.stack([self._fit(row[0] if len(row) == 1 else row.transpose(1, 2, 0)) for row in rows])
        return torch.from_numpy(rows)

    def _fit(self, pixels: np.ndarray) -> np.ndarray:
        channels, height, width = self.shape
        return with_channels(planes(fit(pixels, height, width, self.crop)), channels)


def folder(
    source: str | Path | None,
    *,
    size: Annotated[int | str | None, Option(SIZE_HELP, SIZE)] = None,
    channels: Annotated[int | None, Option("1 for grey, 3 for colour; 1 if all images are grey", CHANNELS)] = None,
    labels: Annotated[str, Option("where classes come from", choices=LABELS)] = "auto",
    crop: Annotated[
        str, Option("how images get this size: cut at the centre, squeezed, or none where all have it", choices=CROPS)
    ] = "center",
    split: Annotated[str | None, Option(SPLIT_HELP, choices=SPLITS)] = None,
    image_column: Annotated[str | None, Option("column of the images of a table")] = None,
    label_column: Annotated[str | None, Option("column of the labels of a table; fine_labels or coarse_labels")] = None,
) -> Folder:
    """The images of a folder and the folders in it, or of an archive, in the order of their names.

    Use: for data of your own, and published ones. PNG, JPEG and others; any sizes, which are made one.

    An archive is a zip as EDM packs data, a tar as WebDataset does, or many of them (``data/{000..099}.tar``), an npz
    as OpenAI does, an npy, CIFAR-10 or CIFAR-100 for Python, downsampled ImageNet, IDX files as MNIST has them, Parquet
    tables, or an LMDB database; none is unpacked, and no pickle is unpickled (docs/data.md).
    ``size`` defaults to the short side, if the images agree on it; ``channels`` to 1 if all are grey, otherwise to 3.
    ``split``, ``image_column`` and ``label_column`` choose among what some of them hold.
    ``labels`` are the names of the first folders below ``source`` (``folder``), what precedes the first ``_`` of the
    file name (``filename-prefix``), or ``none``; ``auto`` takes those of a ``dataset.json`` or of the archive, if there
    are any, and else the folders, if there are several.
    """
    place = open_storage(source, Choice(split, image_column, label_column))
    known = find_labels(place, labels)
    sizes = place.sizes()  # also finds what cannot be read before training begins
    height, width = choose_size(sizes, size, crop)
    channels = channels or (1 if all(one.grey for one in sizes) else 3)
    return Folder(place, known, (channels, height, width), crop)
