"""``folder``: the images of a folder and of the folders in it, or of an archive."""

import zlib
from collections import Counter
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cmtool.datasets import Dataset
from cmtool.datasets.archive_storage import TarStorage, ZipStorage
from cmtool.datasets.array_storage import ArrayStorage
from cmtool.datasets.labels import LABELS, LabelledPictures, find_labels
from cmtool.datasets.storage import FolderStorage, ImageStorage, list_some, show_path
from cmtool.errors import BadFile, MissingInput, UsageError, closest
from cmtool.options.plugin_option import Option
from cmtool.options.types import Check, at_least
from cmtool.pictures import kind_of, planes, with_channels
from cmtool.user_paths import expand_home

__all__ = ["Folder", "folder", "open_place", "square"]

CROPS = ("center", "squeeze")
SIZE_HELP = "side in pixels; the short side of the images, where they agree on it"
CHANNELS = Check(lambda channels: channels in (1, 3), "1 or 3")
ARCHIVES = {".zip": ZipStorage, ".tar": TarStorage, ".npz": ArrayStorage, ".npy": ArrayStorage}
LARGE = 1 << 24  # pixels of a picture between resizing and cutting, above which it is cut first


class Folder(Dataset):
    """Images uint8 [channels, size, size], read when they are asked for.

    ``remarks`` are lines on what was passed over, ``inventory`` has a number for each file that changes with it, and
    one for the labels.
    """

    def __init__(self, place: ImageStorage, known: LabelledPictures, shape: tuple[int, int, int], crop: str):
        self.place, self.shape, self.crop = place, shape, crop
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
        return {**dict(zip(self.place.names, self.place.marks, strict=True)), "labels": labels}

    def __len__(self) -> int:
        return len(self.place.names)

    def __getitem__(self, index: int, /) -> tuple[Tensor, int | None]:
        """BadFile where the image is damaged."""
        index = range(len(self))[index]
        pixels = square(self.place.pixels(index), self.shape[1], self.crop)
        image = with_channels(planes(pixels), self.shape[0])
        return torch.from_numpy(image), None if self.labels is None else self.labels[index]


def square(pixels: np.ndarray, size: int, crop: str = "center") -> np.ndarray:
    """A picture uint8 ``[H, W]`` or ``[H, W, 3]`` as ``size`` x ``size``; one that has this size is left as it is.

    It is halved by averaging while its short side is twice ``size`` or more, brought to ``size`` with a bicubic
    filter, and cut at the centre, as in guided-diffusion (Dhariwal and Nichol 2021, arXiv 2105.05233).
    ``crop="squeeze"`` brings both sides to ``size`` instead.
    """
    image = Image.fromarray(pixels)
    if crop == "squeeze":
        return np.array(image.resize((size, size), Image.Resampling.BICUBIC))
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = size / min(image.size)
    width, height = round(image.width * scale), round(image.height * scale)
    left, top = (width - size) // 2, (height - size) // 2
    if width * height > LARGE:  # of a long strip the middle alone is enlarged
        across, down = image.width / width, image.height / height
        box = (left * across, top * down, (left + size) * across, (top + size) * down)
        return np.array(image.resize((size, size), Image.Resampling.BICUBIC, box=box))
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.array(image.crop((left, top, left + size, top + size)))


def folder(
    source: str | Path | None,
    *,
    size: Annotated[int | None, Option(SIZE_HELP, at_least(1, 1 << 14))] = None,
    channels: Annotated[int | None, Option("1 for grey, 3 for colour; 1 if all images are grey", CHANNELS)] = None,
    labels: Annotated[str, Option("where classes come from", choices=LABELS)] = "auto",
    crop: Annotated[str, Option("how images become square: cut at the centre, or squeezed", choices=CROPS)] = "center",
) -> Folder:
    """The images of a folder and the folders in it, or of an archive, in the order of their names.

    Use: for data of your own. PNG, JPEG and others; any sizes, which are made square.

    An archive is a zip as EDM packs data, a tar as WebDataset does, an npz as OpenAI does, or an npy; none is unpacked.
    ``size`` defaults to the short side, if the images agree on it; ``channels`` to 1 if all are grey, otherwise to 3.
    ``labels`` are the names of the first folders below ``source`` (``folder``), what precedes the first ``_`` of the
    file name (``filename-prefix``), or ``none``; ``auto`` takes those of a ``dataset.json`` or of the archive, if there
    are any, and else the folders, if there are several.
    """
    place = open_place(source)
    known = find_labels(place, labels)
    sizes = [place.size(i) for i in range(len(place.names))]  # also finds what cannot be read before training begins
    size = size or _common([min(one.width, one.height) for one in sizes])
    channels = channels or (1 if all(one.grey for one in sizes) else 3)
    return Folder(place, known, (channels, size, size), crop)


def open_place(source: str | Path | None) -> ImageStorage:
    """The place that a path names."""
    path = _require_path(source)
    if path.is_dir():
        return FolderStorage(path)
    kind = ARCHIVES.get(path.suffix.lower())
    if kind is None:
        what = _begins(path)
        raise BadFile(
            f"{show_path(str(path))} is {'a ' + what if what else 'a file'}, not a folder or an archive that is read",
            f"what works: a folder, {', '.join(ARCHIVES)}; its folder is {show_path(str(path.parent))}",
        )
    try:
        return kind(path)
    except OSError as error:
        raise MissingInput(f"cannot read {show_path(str(path))}: {error.strerror}") from error


def _begins(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return kind_of(file.read(64))
    except OSError as error:
        raise MissingInput(f"cannot read {show_path(str(path))}: {error.strerror}") from error


def _require_path(source: str | Path | None) -> Path:
    if source is None:
        raise UsageError("the data set 'folder' needs the path of a folder with images, or of an archive")
    root = Path(expand_home(source))
    if root.is_dir() or root.is_file():
        return root
    if root.exists():
        raise MissingInput(f"{root} is neither a folder nor a file")
    above = next(parent for parent in root.absolute().parents if parent.is_dir())
    there = sorted(entry.name for entry in above.iterdir() if _can_be_data(entry))
    near = closest(root.absolute().relative_to(above).parts[0], there)
    hint = f"did you mean '{above / near}'?" if near else f"in {above} there are: {list_some(there)}"
    raise MissingInput(f"there is no folder or file {show_path(str(root))}", hint)


def _can_be_data(entry: Path) -> bool:
    return not entry.name.startswith(".") and (entry.is_dir() or entry.suffix.lower() in ARCHIVES)


def _common(sides: list[int]) -> int:
    count = Counter(sides)
    if len(count) == 1:
        return sides[0]
    common = [f"size={side}" for side in (32, 64, 128, 256) if side <= min(sides)] or [f"size={min(sides)}"]
    raise UsageError(
        f"the images differ in size: their short sides go from {min(sides)} to {max(sides)} pixels",
        f"give one size for all: {', '.join(common)}",
    )
