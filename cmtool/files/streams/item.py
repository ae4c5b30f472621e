"""What flows through a stream."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from cmtool.errors import BadFile
from cmtool.pictures import decode, planes, with_channels

__all__ = ["WORKERS", "Batch", "Item", "batched", "pixels", "size_of"]

WORKERS = 4  # threads that decode or encode; zlib and the JPEG decoder work without the interpreter's lock


@dataclass(frozen=True)
class Item:
    """An image: the ``name`` messages call it by, where its pixels are, and its label.

    ``source`` is the path or the bytes of a picture that is not decoded yet, or uint8 [C, H, W], or a point, float [D].
    """

    name: str
    source: Path | bytes | np.ndarray
    label: int | None = None


@dataclass(frozen=True)
class Batch:
    """``images`` uint8 [B, C, H, W] (or points float32 [B, D]), their ``names``, and ``labels`` int64 [B] or None."""

    names: list[str]
    images: np.ndarray
    labels: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.names)


def batched(items: Iterator[Item], size: int, channels: int | None = None) -> Iterator[Batch]:
    """Decode items, ``size`` at a time and a few at once, in their order.

    All have the size of the first one. Grey ones among coloured ones become coloured, or all have ``channels`` (1 or
    3). Labels are given where every image of the batch has one. BadFile names the image that does not fit.
    """
    first: tuple[str, np.ndarray] | None = None
    with ThreadPoolExecutor(WORKERS) as pool:
        while chunk := list(islice(items, size)):
            images = []
            for item, image in zip(chunk, pool.map(pixels, chunk), strict=True):
                image = with_channels(image, channels) if channels and image.ndim == 3 else image
                first = first or (item.name, image)
                images.append(_like(first, item.name, image))
            yield Batch([item.name for item in chunk], np.stack(images), _labels([item.label for item in chunk]))


def pixels(item: Item) -> np.ndarray:
    """uint8 [C, H, W] of an item, or its point."""
    return item.source if isinstance(item.source, np.ndarray) else planes(decode(item.source, item.name))


def size_of(image: np.ndarray) -> str:
    """``32x24`` (width by height) of [C, H, W]."""
    return f"{image.shape[2]}x{image.shape[1]}"


def _like(first: tuple[str, np.ndarray], name: str, image: np.ndarray) -> np.ndarray:
    model = first[1]
    if image.ndim == 1:
        return image
    if image.shape[1:] != model.shape[1:]:
        raise BadFile(
            f"{name} is {size_of(image)}, but {first[0]} is {size_of(model)}",
            "images of one stream have one size: resize them first",
        )
    if len(image) > len(model):
        raise BadFile(f"{name} is in colour, but {first[0]} is grey", "make them all grey or all coloured")
    return with_channels(image, len(model))


def _labels(labels: Sequence[int | None]) -> np.ndarray | None:
    known = [label for label in labels if label is not None]
    return np.array(known, dtype=np.int64) if len(known) == len(labels) else None
