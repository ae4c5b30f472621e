"""What flows through a stream."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cmtool.errors import BadFile, CmtoolError
from cmtool.pictures import MAX_BYTES, decode, planes, size_of_file, with_channels

__all__ = ["WORKERS", "Item", "ItemBatch", "StoredPicture", "batch_items", "decode_items", "pixels", "size_of"]

WORKERS = 4  # threads that decode or encode; zlib and the JPEG decoder work without the interpreter's lock
MOST = 1 << 28  # bytes of pixels in a batch
LARGE = 1 << 26  # bytes that are being decoded at once, of pictures smaller than that


@dataclass(frozen=True)
class StoredPicture:
    """One that somebody else reads when it is asked for: ``read`` gives uint8 [C, H, W], and takes so many bytes."""

    read: Callable[[], np.ndarray]
    bytes: int


@dataclass(frozen=True)
class Item:
    """An image: the ``name`` messages call it by, where its pixels are, its label and the name of its class.

    ``source`` is the path or the bytes of a picture that is not decoded yet, or one that another reader decodes, or
    uint8 [C, H, W], or a point, float [D]. ``key`` is its path within the folder or archive; an array has none, and
    numbers its images instead.
    """

    name: str
    source: Path | bytes | StoredPicture | np.ndarray
    label: int | None = None
    key: str = ""
    number: int = 0
    class_name: str = ""


@dataclass(frozen=True)
class ItemBatch:
    """``images`` uint8 [B, C, H, W] (or points float32 [B, D]), their ``names``, and ``labels`` int64 [B] or None."""

    names: list[str]
    images: np.ndarray
    labels: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.names)


def batch_items(items: Iterator[Item], size: int, channels: int | None = None) -> Iterator[ItemBatch]:
    """Images in their order, ``size`` at a time, or fewer where they are large.

    All have the size of the first one. Grey ones among coloured ones become coloured, or all have ``channels`` (1 or
    3). Labels are given where every image of the batch has one. BadFile names the image that does not fit.
    """
    first: tuple[str, np.ndarray] | None = None
    for some in decode_items(items, size):
        images = []
        for item, image in some:
            image = with_channels(image, channels) if channels and image.ndim == 3 else image
            first = first or (item.name, image)
            images.append(_like(first, item.name, image))
        yield ItemBatch([item.name for item, _ in some], np.stack(images), _labels([item.label for item, _ in some]))


def decode_items(items: Iterator[Item], size: int) -> Iterator[list[tuple[Item, np.ndarray]]]:
    """Items with their pixels, each of its own size, ``size`` at a time, or fewer where they are large.

    A few are decoded at once; a large one alone, so that what is in memory has a bound, whatever the files say.
    """
    with ThreadPoolExecutor(WORKERS) as pool:
        work = _Work(pool)
        for item in items:
            weight = _weight(item)
            if len(work) and work.held + work.weight + weight > MOST:
                yield work.all()
            work.make_room(LARGE - weight)
            work.add(item, weight)
            if len(work) == size:  # a pipe may bring no more for a long time
                yield work.all()
        if len(work):
            yield work.all()


class _Work:
    """The items of a batch: those that are decoded, and behind them those that still are being."""

    def __init__(self, pool: ThreadPoolExecutor):
        self.pool, self.weight, self.held = pool, 0, 0
        self.done: list[tuple[Item, np.ndarray]] = []
        self.waiting: deque[tuple[Item, Future[np.ndarray], int]] = deque()

    def __len__(self) -> int:
        return len(self.done) + len(self.waiting)

    def add(self, item: Item, weight: int) -> None:
        self.waiting.append((item, self.pool.submit(pixels, item), weight))
        self.weight += weight

    def make_room(self, weight: int) -> None:
        """Wait until no more than ``weight`` bytes are being decoded."""
        while self.waiting and self.weight > weight:
            item, job, size = self.waiting.popleft()
            image = job.result()
            self.weight -= size
            self.held += image.nbytes
            self.done.append((item, image))

    def all(self) -> list[tuple[Item, np.ndarray]]:
        """The whole batch; the next one begins."""
        self.make_room(-1)
        done, self.done, self.held = self.done, [], 0
        return done


def _weight(item: Item) -> int:
    """About how many bytes decoding an item takes: those of its file, and four for each pixel that it claims."""
    if isinstance(item.source, np.ndarray):
        return item.source.nbytes
    if isinstance(item.source, StoredPicture):
        return item.source.bytes
    source = item.source
    held = len(source) if isinstance(source, bytes) else min(source.stat().st_size, MAX_BYTES) if source.exists() else 0
    try:
        size = size_of_file(source, item.name)
    except CmtoolError:  # which decoding says in its turn
        return held
    return held + 4 * size.width * size.height


def pixels(item: Item) -> np.ndarray:
    """uint8 [C, H, W] of an item, or its point."""
    if isinstance(item.source, StoredPicture):
        return item.source.read()
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
