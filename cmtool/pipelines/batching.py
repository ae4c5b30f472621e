"""How many images are computed at once: chunks of one size, so that no bit depends on their number."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import torch

from cmtool.errors import Hint, OutOfMemory, Setting, is_out_of_memory

__all__ = ["MemoryPlan", "attempt", "chunk_size", "num_threads"]

DEFAULT_BATCH = 64  # images at a time where nothing is said
T = TypeVar("T")


def chunk_size(shape: tuple[int, ...], device: torch.device) -> int:
    """Images that one call of the network sees, whatever the batch: few enough for a core's cache, or to fill a GPU."""
    if len(shape) == 1:
        return 1024
    pixels, most = (1 << 13, 64) if device.type == "cpu" else (1 << 18, 256)
    return max(1, min(pixels // math.prod(shape[1:]), most))


def num_threads(device: torch.device, cores: int | None = None) -> int:
    """Chunks at a time."""
    return cores or torch.get_num_threads() if device.type == "cpu" else 1


@dataclass(frozen=True)
class MemoryPlan:
    """How many images are in memory: ``rounds`` of a chunk on each of ``cores``; less would leave cores idle."""

    chunk: int
    rounds: int
    cores: int

    @classmethod
    def of(cls, shape: tuple[int, ...], device: torch.device, batch: int | str) -> "MemoryPlan":
        one, cores = chunk_size(shape, device), num_threads(device)
        return cls(one, math.ceil((DEFAULT_BATCH if isinstance(batch, str) else batch) / (one * cores)), cores)

    @property
    def images(self) -> int:
        return self.chunk * self.rounds * self.cores

    def halved(self) -> "MemoryPlan":
        """OutOfMemory where there is nothing to halve."""
        if self.rounds > 1:
            return replace(self, rounds=self.rounds // 2)
        if self.cores > 1:
            return replace(self, cores=self.cores // 2)
        raise OutOfMemory(
            f"not even {self.chunk} images at a time fit into memory",
            Hint("use a larger device: {}", Setting("device", "cpu")),
        )


def attempt(work: Callable[[], T], batch: int | str) -> T | None:
    """What ``work`` makes; None where memory ran out and the batch, which is ``auto``, may shrink."""
    try:
        return work()
    except Exception as error:
        if isinstance(batch, int) or not is_out_of_memory(error):
            raise
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # here the failed attempt is no longer held by its traceback
    return None
