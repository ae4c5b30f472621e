"""What takes the images of a stream in, and the threads that encode them while the next ones are made."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np

from cmtool.files.atomic import write_file
from cmtool.files.streams.item import WORKERS

__all__ = ["Called", "GrowingSink", "Sink", "Writer", "stem"]

Taken = Callable[[Sequence[int], Sequence[int | None]], None]
Called = Callable[[int], str]  # the name of the file of a seed


class Sink(Protocol):
    """Where one format puts images: made ready in any thread, then added in their order."""

    def begin(self) -> None:
        """How the file starts."""
        ...

    def prepare(self, seed: int, image: np.ndarray) -> bytes:
        """The bytes of uint8 [C, H, W], or of a point [D]; equal images give equal bytes."""
        ...

    def add(self, seed: int, data: bytes, label: int | None) -> None: ...

    def finish(self) -> None: ...


class GrowingSink(Sink, Protocol):
    """One whose file can be taken up again where it was cut."""

    def keep(self, seeds: Sequence[int], labels: Sequence[int | None]) -> int:
        """Take up the images of these seeds as far as the file holds them whole, cut off the rest; how many it kept."""
        ...

    def payloads(self) -> Iterator[bytes]:
        """What was added, of a finished file."""
        ...


class Writer:
    """Batches of images on their way to a sink; ``taken`` hears of those that have arrived.

    A batch is encoded by a few threads until the next one comes, so that no more than two are in memory.
    """

    def __init__(self, sink: Sink, name: str, flush: Callable[[], None], taken: Taken = lambda seeds, labels: None):
        self.sink, self.name, self.flush, self.taken = sink, name, flush, taken
        self.pool = ThreadPoolExecutor(WORKERS)
        self.pending: list[tuple[int, Future[bytes], int | None]] = []

    def begin(self) -> None:
        """Start a new file."""
        with write_file(self.name):
            self.sink.begin()

    def write(self, seeds: Any, images: Any, labels: Any = None) -> None:
        """``seeds`` [B], ``images`` uint8 [B, C, H, W] or points [B, D], ``labels`` [B] where they were announced."""
        self.settle()
        numbers = [None] * len(images) if labels is None else np.asarray(labels).tolist()
        for seed, image, number in zip(map(int, seeds), np.asarray(images), numbers, strict=True):
            self.pending.append((seed, self.pool.submit(self.sink.prepare, seed, image), number))

    def settle(self) -> None:
        """Wait for the last batch, and put it in its place."""
        pending, self.pending = self.pending, []
        self.add([(seed, job.result(), label) for seed, job, label in pending])

    def add(self, images: Sequence[tuple[int, bytes, int | None]]) -> None:
        """Images as the sink has prepared them: seed, bytes, label."""
        with write_file(self.name):
            for image in images:
                self.sink.add(*image)
            self.flush()
        if images:
            self.taken([seed for seed, _, _ in images], [label for _, _, label in images])

    def finish(self) -> None:
        """Write what is pending and the end of the file."""
        self.settle()
        with write_file(self.name):
            self.sink.finish()
            self.flush()

    def close(self) -> None:
        """Stop the threads; nothing more is written."""
        self.pool.shutdown(cancel_futures=True)


def stem(seed: int) -> str:
    """What the image of a seed is called: its seed."""
    return f"{seed:08d}"
