"""Work on numbered things by a few threads, results in order, with a bound on what waits."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from os import cpu_count
from typing import TypeVar

__all__ = ["READERS", "map_chunks"]

READERS = min(8, cpu_count() or 1)
WAITING = 2  # chunks a thread that may be done or under way before the first of them is taken

Result = TypeVar("Result")


def map_chunks(
    work: Callable[[Sequence[int]], Result], numbers: Sequence[int], chunk: int, threads: int = READERS
) -> Iterator[Result]:
    """``work(numbers[0:chunk])``, ``work(numbers[chunk:2 * chunk])``, ... in this order, ``threads`` at once.

    No more than ``2 threads`` results are in memory. What is cut into chunks does not depend on the threads, so that
    neither do the results. An exception of ``work`` comes when its chunk is due.
    """
    starts = iter(range(0, len(numbers), chunk))
    waiting: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for start in starts:
            waiting.append(pool.submit(work, numbers[start : start + chunk]))
            if len(waiting) == WAITING * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
