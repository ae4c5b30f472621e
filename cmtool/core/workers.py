"""Work side by side on the processor, with the same bits whatever the number of threads."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch

__all__ = ["workers"]


@contextmanager
def workers(threads: int) -> Iterator[Callable[..., Iterator[Any]]]:
    """A ``map`` whose calls run on ``threads`` threads, each with one core to itself, and come back in order.

    A kernel spread over cores cuts its sums by their number; here the caller cuts the work, and each piece is computed
    as if alone.
    """
    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads, "worker", torch.set_num_threads, (1,))
    try:
        torch.set_num_threads(1)
        with pool:
            yield pool.map if threads > 1 else map
    finally:
        torch.set_num_threads(before)
