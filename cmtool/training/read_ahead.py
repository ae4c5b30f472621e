"""Threads that read ahead: what comes next is made while the last is in use, and is the same bits as without them."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from cmtool.objectives.objective import Batch
from cmtool.training.batches import AHEAD, Batches
from cmtool.training.cache import ImageCache
from cmtool.training.memory import reading_threads

__all__ = ["ReadAhead", "depth_for", "map_ahead", "read_parts"]

BYTES = 256 << 20  # of batches that wait
Item = TypeVar("Item")
Result = TypeVar("Result")


class ReadAhead:
    """``get(n, rows)`` is ``batches.at(n, rows)``, made before it is asked for when batches are asked for in a row.

    It begins with the batch of image ``first``, and goes on with the same rows of the batches after it. Who asks for
    another place or for other rows waits for them once; from there it goes on. The last batch can be had again.
    ``depth`` batches wait at most: as many as fit in 256 MB, up to 8, unless it is given. To be closed, or used in a
    ``with`` block: all its threads have ended then.
    """

    def __init__(self, batches: Batches, first: int = 0, rows: range | None = None, depth: int | None = None):
        self.batches, self.depth = batches, depth
        self.pool = ThreadPoolExecutor(reading_threads(), "read-ahead", _use_device, (batches.device,))
        self.waiting: deque[tuple[int, Future[Batch]]] = deque()
        self.asked: tuple[int, range] | None = None
        self._begin(first, self._known(rows))

    @property
    def size(self) -> int:
        """The images of a whole batch."""
        return self.batches.config.size

    def get(self, n: int, rows: range | None = None) -> Batch:
        """The batch that begins with image n, or these rows of it; what went wrong when it was made is raised here."""
        asked = n, self._known(rows)
        if asked != self.asked:
            if self.rows != asked[1] or self.waiting[0][0] != n:
                self._begin(*asked)
            self.asked, (_, self.given) = asked, self.waiting.popleft()
            self._fill()
        return self.given.result()

    def close(self) -> None:
        """Drop what waits, and end the threads."""
        self.pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> "ReadAhead":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _known(self, rows: range | None) -> range:
        return range(self.batches.config.size) if rows is None else rows

    def _begin(self, n: int, rows: range) -> None:
        for _, batch in self.waiting:
            batch.cancel()
        self.waiting.clear()
        self.rows, self.next = rows, n
        self.most = self.depth or depth_for(self.batches.bytes_of(len(self.rows)))
        self._fill()

    def _fill(self) -> None:
        while len(self.waiting) < self.most:
            self.waiting.append((self.next, self.pool.submit(self.batches.at, self.next, self.rows)))
            self.next += self.batches.config.size


def _use_device(device: torch.device) -> None:
    """A thread pins memory for its current GPU, which is the first one of the machine unless it is told."""
    if device.type == "cuda":
        torch.cuda.set_device(device)


def depth_for(size: int) -> int:
    """How many batches of ``size`` bytes may wait: 1 to 8, as many as fit in 256 MB."""
    return max(1, min(AHEAD, BYTES // size))


def read_parts(
    cache: ImageCache, parts: Iterable[Sequence[int] | np.ndarray], depth: int = AHEAD
) -> Generator[tuple[Tensor, Tensor | None], None, None]:
    """Images and labels of each part, in order, read ahead; a thread would only delay those that are in memory."""
    rest = iter(parts)

    def unread() -> Iterator[Sequence[int] | np.ndarray]:
        while not cache.complete and (part := next(rest, None)) is not None:
            yield part

    with closing(map_ahead(cache.read, unread(), depth)) as found:
        yield from found
    yield from map(cache.read, rest)


def map_ahead(
    function: Callable[[Item], Result], items: Iterable[Item], depth: int = AHEAD, threads: int | None = None
) -> Generator[Result, None, None]:
    """``function`` of each item, in order: that of the next ``depth`` is computed by ``threads`` meanwhile."""
    rest = iter(items)
    with ThreadPoolExecutor(threads or min(depth, reading_threads()), "read-ahead") as pool:
        waiting = deque(pool.submit(function, item) for item in islice(rest, depth))
        try:
            while waiting:
                found = waiting.popleft().result()
                waiting.extend(pool.submit(function, item) for item in islice(rest, 1))
                yield found
        finally:
            for result in waiting:
                result.cancel()
