"""What data hold, picture by picture: sizes, modes, classes, duplicates, damage, mean, and a fingerprint."""

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, field, replace

import numpy as np

from cmtool.errors import BadFile, MissingInput
from cmtool.pictures import Size
from cmtool.pipelines.numbered_pictures import NumberedPictures
from cmtool.pipelines.picture_fingerprint import Duplicates, PictureList, digest
from cmtool.training.memory import reading_threads
from cmtool.training.read_ahead import map_ahead

__all__ = ["BrokenPicture", "DataReport", "measure_data"]

CHUNK = 64  # pictures of a task
LARGE = 1 << 22  # pixels, above which pictures are decoded one at a time
SHOWN = 100  # damaged pictures that are named
SQUARES = np.arange(256, dtype=np.uint16) ** 2


@dataclass(frozen=True)
class BrokenPicture:
    """One that cannot be read, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class DataReport:
    """What was found of ``images`` pictures, of which the ``broken`` ones count for nothing else but their class.

    ``sizes`` are width and height, ``classes`` the number of pictures of each. ``mean`` and ``std`` are those of each
    channel, in model units, where uint8 ``v`` is ``v / 127.5 - 1``; where some pictures are grey and others coloured,
    grey ones count for all three channels. After a quick look, what takes decoding is None.
    """

    images: int
    sizes: Counter[tuple[int, int]]
    modes: Counter[str]
    classes: dict[str, int] | None
    broken: int
    broken_examples: list[BrokenPicture]
    mean: list[float] | None = None
    std: list[float] | None = None
    duplicates: Duplicates | None = None
    fingerprint: str | None = None


@dataclass
class _Tally:
    """What was seen of some pictures: ``moments`` are sum and sum of squares [2, C], ``values`` how many, by C."""

    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)
    labels: Counter[int] = field(default_factory=Counter)
    values: Counter[int] = field(default_factory=Counter)
    moments: dict[int, np.ndarray] = field(default_factory=dict)
    read: list[tuple[int, bytes, int | None]] = field(default_factory=list)
    broken: int = 0
    examples: list[BrokenPicture] = field(default_factory=list)

    def size(self, size: Size) -> None:
        self.sizes[size.width, size.height] += 1
        self.modes[size.mode or ("grey" if size.grey else "RGB")] += 1

    def pixels(self, number: int, pixels: np.ndarray, label: int | None) -> None:
        channels, moments = len(pixels), _moments(pixels)
        self.values[channels] += pixels[0].size
        self.moments[channels] = self.moments[channels] + moments if channels in self.moments else moments
        self.read.append((number, digest(pixels), label))
        if label is not None:
            self.labels[label] += 1

    def fail(self, name: str, error: Exception) -> None:
        self.broken += 1
        self.examples = [*self.examples, BrokenPicture(name, str(error))][:SHOWN]

    def add(self, other: "_Tally") -> None:
        """What another saw of the next pictures, but for ``read``."""
        for mine, more in zip(self._counters(), other._counters(), strict=True):
            mine.update(more)
        for channels, moments in other.moments.items():
            self.moments[channels] = self.moments[channels] + moments if channels in self.moments else moments
        self.broken += other.broken
        self.examples = (self.examples + other.examples)[:SHOWN]

    def _counters(self) -> tuple[Counter, ...]:
        return self.sizes, self.modes, self.labels, self.values


def measure_data(
    pictures: NumberedPictures,
    quick: bool = False,
    threads: int | None = None,
    seen: Callable[[int], object] = lambda n: None,
) -> DataReport:
    """Look at every picture by a few threads; ``quick`` reads only what files say of themselves.

    ``seen`` is called with how many were looked at. What is found does not depend on the threads. In memory are the
    pictures under way, 13 bytes for each picture, and an entry for each size that occurs.
    """
    alone, n = threading.Lock(), len(pictures)

    def look(numbers: Sequence[int]) -> _Tally:
        tally = _Tally()
        for number in numbers:
            try:
                size = pictures.size(number)
                if not quick:
                    with alone if size and size.width * size.height > LARGE else nullcontext():
                        pixels, label = pictures.read(number)
                        tally.pixels(number, pixels, label)
                    size = size and replace(size, width=pixels.shape[2], height=pixels.shape[1])  # EXIF may turn it
                if size:
                    tally.size(size)
            except (BadFile, MissingInput) as error:
                tally.fail(pictures.call(number), error)
        return tally

    every, known = _Tally(), PictureList(0 if quick else n)
    threads = threads or reading_threads()
    parts = (range(n)[at : at + CHUNK] for at in range(0, n, CHUNK))
    with closing(map_ahead(look, parts, 2 * threads, threads)) as tallies:
        for at, tally in enumerate(tallies):
            every.add(tally)
            for one in tally.read:
                known.add(*one)
            seen(min((at + 1) * CHUNK, n))
    classes = _classes(pictures, every.labels)
    report = DataReport(n, every.sizes, every.modes, classes, every.broken, every.examples)
    if quick:
        return report
    mean, std = _mean_and_std(every)
    duplicates = known.duplicates(pictures.call)
    return replace(report, mean=mean, std=std, duplicates=duplicates, fingerprint=known.fingerprint())


def _classes(pictures: NumberedPictures, found: Counter[int]) -> dict[str, int] | None:
    count = Counter(pictures.labels) if pictures.labels is not None else found
    return {name: count[k] for k, name in enumerate(pictures.classes)} if count else None


def _moments(pixels: np.ndarray) -> np.ndarray:
    """Sum and sum of squares of each channel: int64 [2, C] of uint8 [C, H, W], float64 [2, D] of a point."""
    if pixels.dtype != np.uint8:
        values = pixels.astype(np.float64)
        return np.stack([values, values * values])
    rows = pixels.reshape(len(pixels), -1)
    return np.stack([rows.sum(1, dtype=np.int64), SQUARES[rows].sum(1, dtype=np.int64)])


def _mean_and_std(every: _Tally) -> tuple[list[float] | None, list[float] | None]:
    """Of each channel; sums of uint8 are whole numbers and stay exact."""
    if not every.moments:
        return None, None
    count, channels = sum(every.values.values()), max(every.moments)
    total = np.sum([np.broadcast_to(moments, (2, channels)) for moments in every.moments.values()], axis=0)
    scale, shift = (127.5, 1) if total.dtype == np.int64 else (1, 0)
    pairs = list(zip(*total.tolist(), strict=True))  # of Python's numbers, which have no largest
    mean = [first / count / scale - shift for first, _ in pairs]
    return mean, [max(count * second - first * first, 0) ** 0.5 / count / scale for first, second in pairs]
