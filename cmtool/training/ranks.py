"""What the ranks of a run say to each other in a step: numbers they agree on, and parts of the gradient."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from cmtool.errors import LostRank

__all__ = ["ALONE", "GroupRanks", "Ranks", "lost_rank"]


class Ranks(Protocol):
    """This process, the ``rank``-th of ``size``. Each method is called by all ranks, in the same order.

    LostRank where another one does not answer.
    """

    rank: int
    size: int

    def maximum(self, numbers: Sequence[int]) -> list[int]:
        """The largest of any rank, number by number."""
        ...

    def add(self, number: Tensor) -> Tensor:
        """The sum over the ranks, the same bits on each."""
        ...

    def exchange(self, sent: Tensor, came: Tensor, lengths: Sequence[int]) -> None:
        """Part r of ``sent``, of equal parts, goes to rank r; ``came`` gets that of each rank, of these lengths."""
        ...

    def gather(self, mine: Tensor, whole: Tensor) -> None:
        """``whole`` gets what each rank has, of equal lengths, in the order of the ranks."""
        ...


class Alone:
    """One process."""

    rank, size = 0, 1

    def maximum(self, numbers: Sequence[int]) -> list[int]:
        return list(numbers)

    def add(self, number: Tensor) -> Tensor:
        return number

    def exchange(self, sent: Tensor, came: Tensor, lengths: Sequence[int]) -> None:
        came.copy_(sent)

    def gather(self, mine: Tensor, whole: Tensor) -> None:
        whole.copy_(mine)


ALONE: Ranks = Alone()


class GroupRanks:
    """The ranks of the default group of ``torch.distributed``, which somebody else has started."""

    def __init__(self) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()

    def maximum(self, numbers: Sequence[int]) -> list[int]:
        found = torch.tensor(list(numbers), dtype=torch.int64)
        with _answered(self.rank):
            dist.all_reduce(found, dist.ReduceOp.MAX)
        return found.tolist()

    def add(self, number: Tensor) -> Tensor:
        found = number.clone()
        with _answered(self.rank):
            dist.all_reduce(found)
        return found

    def exchange(self, sent: Tensor, came: Tensor, lengths: Sequence[int]) -> None:
        with _answered(self.rank):
            dist.all_to_all_single(came, sent, list(lengths), [len(sent) // self.size] * self.size)

    def gather(self, mine: Tensor, whole: Tensor) -> None:
        with _answered(self.rank):
            dist.all_gather(list(whole.chunk(self.size)), mine)


@contextmanager
def _answered(rank: int) -> Iterator[None]:
    """Around nothing but a collective operation: gloo's errors have no class of their own."""
    try:
        yield
    except RuntimeError as error:
        raise lost_rank(rank) from error


def lost_rank(rank: int) -> LostRank:
    """What a rank says that waited in vain."""
    return LostRank(f"rank {rank} waited for one that ended early", "the other one says why")
