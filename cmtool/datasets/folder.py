"""``folder``: the images of a folder and of the folders in it."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cmtool.errors import MissingInput, UsageError, closest, unknown
from cmtool.pictures import FORMATS, SUFFIXES, decode, planes, with_channels

__all__ = ["Folder", "folder", "square"]

LABELS = ("auto", "filename-prefix", "folder", "none")
CROPS = ("center", "squeeze")


class Folder:
    """Images uint8 [channels, size, size], read when they are asked for; ``files`` are their paths, in order."""

    def __init__(self, root: Path, files: list[Path], names: list[str] | None, shape: tuple[int, int, int], crop: str):
        self.files, self.shape, self.crop = files, shape, crop
        self.classes = tuple(sorted(set(names or ())))
        numbers = {name: k for k, name in enumerate(self.classes)}
        self.labels = None if names is None else [numbers[name] for name in names]
        self.notice = f"{len(files)} images of the folder '{root.resolve().name}', of unknown origin and licence"

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int, /) -> tuple[Tensor, int | None]:
        """BadFile where the image is damaged."""
        pixels = square(decode(self.files[index]), self.shape[1], self.crop)
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
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return np.array(image.crop((left, top, left + size, top + size)))


def folder(
    source: str | Path | None,
    *,
    size: int | None = None,
    channels: int | None = None,
    labels: str = "auto",
    crop: str = "center",
) -> Folder:
    """All images below ``source`` in the order of their names.

    ``size`` defaults to the short side, if the images agree on it; ``channels`` to 1 if all are grey, otherwise to 3.
    ``labels`` are the names of the first folders below ``source`` (``folder``), what precedes the first ``_`` of the
    file name (``filename-prefix``), or ``none``; ``auto`` takes the folders where every image lies in one of several.
    """
    for what, value, allowed in (("way to label", labels, LABELS), ("crop", crop, CROPS)):
        if value not in allowed:
            raise unknown(what, value, allowed)
    if (size is not None and size < 1) or channels not in (None, 1, 3):
        raise UsageError("a folder of images needs a size of 1 or more, and 1 or 3 channels")
    root = _existing(source)
    files = _find(root)
    names = _names(root, files, labels)
    if size is None or channels is None:
        headers = [_header(file) for file in files]
        size = size or _common([side for side, _ in headers])
        channels = channels or (1 if all(grey for _, grey in headers) else 3)
    return Folder(root, files, names, (channels, size, size), crop)


def _existing(source: str | Path | None) -> Path:
    if source is None:
        raise UsageError("the data set 'folder' needs the path of a folder with images")
    root = Path(source).expanduser()
    if root.is_dir():
        return root
    if root.exists():
        raise MissingInput(f"{root} is a file, not a folder", f"its folder is {root.parent}")
    above = next(parent for parent in root.absolute().parents if parent.is_dir())
    there = sorted(entry.name for entry in above.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    near = closest(root.absolute().relative_to(above).parts[0], there)
    hint = f"did you mean '{above / near}'?" if near else f"in {above} there are: {_some(there)}"
    raise MissingInput(f"there is no folder {root}", hint)


def _find(root: Path) -> list[Path]:
    files, seen = [], {root.resolve()}
    for place, folders, names in os.walk(root, followlinks=True):
        # Links are followed, since big data sets are often made of them, but never in a circle.
        folders[:] = [name for name in sorted(folders) if name[0] != "." and not _again(Path(place, name), seen)]
        files += [Path(place, name) for name in names if name[0] != "." and name.lower().endswith(SUFFIXES)]
    if not files:
        there = sorted(entry.name for entry in root.iterdir())
        raise MissingInput(
            f"there are no images in {root}", f"it holds: {_some(there)}; read are {', '.join(SUFFIXES)}"
        )
    return sorted(files, key=lambda file: file.relative_to(root).as_posix())


def _again(place: Path, seen: set[Path]) -> bool:
    real = place.resolve()
    known = real in seen
    seen.add(real)
    return known


def _some(names: Sequence[str], most: int = 8) -> str:
    return ", ".join([*names[:most], "..."] if len(names) > most else names) or "nothing"


def _names(root: Path, files: list[Path], labels: str) -> list[str] | None:
    """The class of each file, or None."""
    if labels == "none":
        return None
    if labels == "filename-prefix":
        return [_before(file, file.name, "_", "its name has no '_'") for file in files]
    paths = [file.relative_to(root).as_posix() for file in files]
    if labels == "auto" and (any("/" not in path for path in paths) or len({p.split("/")[0] for p in paths}) < 2):
        return None
    return [
        _before(file, path, "/", "it lies in no folder of a class") for file, path in zip(files, paths, strict=True)
    ]


def _before(file: Path, text: str, mark: str, otherwise: str) -> str:
    if mark not in text:
        raise UsageError(f"{file} has no label: {otherwise}", "labels can be: " + ", ".join(LABELS))
    return text.split(mark)[0]


def _header(file: Path) -> tuple[int, bool]:
    """The short side of an image and whether it is grey; its pixels are not decoded."""
    try:
        with Image.open(file, formats=FORMATS) as image:
            return min(image.size), image.mode in ("1", "L", "LA") or image.mode.startswith("I")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        decode(file)  # says in a sentence what is wrong
        raise


def _common(sides: list[int]) -> int:
    count = Counter(sides)
    if len(count) == 1:
        return sides[0]
    usual = [f"size={side}" for side in (32, 64, 128, 256) if side <= min(sides)] or [f"size={min(sides)}"]
    raise UsageError(
        f"the images differ in size: their short sides go from {min(sides)} to {max(sides)} pixels",
        f"give one size for all: {', '.join(usual)}",
    )
