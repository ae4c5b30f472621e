"""Ranks that are threads of one process, of which one computes at a time: torch's generator is one for all of them."""

import threading
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import torch
from torch import Tensor

from cmtool.errors import LostRank


class Meeting:
    """Where ``size`` threads meet: a thread that waits there lets another one compute."""

    def __init__(self, size: int):
        self.size, self.turn, self.gone = size, threading.Condition(), False
        self.brought: dict[int, dict[int, Any]] = {}

    def exchange(self, rank: int, call: int, thing: Any) -> list[Any]:
        """What all brought in their n-th ``call``."""
        brought = self.brought.setdefault(call, {})
        brought[rank] = thing
        self.turn.notify_all()
        self.turn.wait_for(lambda: len(brought) == self.size or self.gone, 60)
        if len(brought) < self.size:
            raise LostRank(f"rank {rank} waited for one that ended early")
        return [brought[each] for each in range(self.size)]

    def leave(self) -> None:
        self.gone = True
        self.turn.notify_all()


class ThreadRanks:
    def __init__(self, rank: int, meeting: Meeting):
        self.rank, self.size, self.meeting, self.calls = rank, meeting.size, meeting, count()

    def tell(self, thing: Any) -> list[Any]:
        return self.meeting.exchange(self.rank, next(self.calls), thing)

    def maximum(self, numbers: Sequence[int]) -> list[int]:
        return [max(each) for each in zip(*self.tell(list(numbers)), strict=True)]

    def add(self, number: Tensor) -> Tensor:
        return torch.stack(self.tell(number.clone())).sum(0)

    def exchange(self, sent: Tensor, came: Tensor, lengths: Sequence[int]) -> None:
        found = self.tell(sent.clone())
        mine = [each.chunk(self.size)[self.rank] if len(each) else each for each in found]
        assert [len(each) for each in mine] == list(lengths)
        came.copy_(torch.cat(mine))

    def gather(self, mine: Tensor, whole: Tensor) -> None:
        whole.copy_(torch.cat(self.tell(mine.clone())))


def on_ranks(size: int, work: Callable[[ThreadRanks], Any]) -> list[Any]:
    """What ``work`` gives on each rank, or the exception that it raises there."""
    meeting, found = Meeting(size), [None] * size

    def run(rank: int) -> None:
        with meeting.turn:
            try:
                found[rank] = work(ThreadRanks(rank, meeting))
            except BaseException as error:
                found[rank] = error
                meeting.leave()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    return found
