"""Ranks of torchrun that do one thing together: each has its share of the work, and all see everything in one order."""

import atexit
from collections.abc import Iterator
from typing import TypeVar

import torch.distributed as dist

from cmtool.commands.shards import shard_of
from cmtool.errors import CmtoolError

__all__ = ["in_turn", "leads", "share", "summed"]

T = TypeVar("T")


def share() -> tuple[int, int]:
    """The rank of this process, and how many there are."""
    part, parts = shard_of(None)
    return part - 1, parts


def leads() -> bool:
    """Whether this process is the one that tells the result."""
    return share()[0] == 0


def in_turn(mine: Iterator[T]) -> Iterator[T]:
    """The things of all ranks, on every rank: the first of each in the order of the ranks, then the second of each.

    Where thing k of a work is made by rank k mod w, that is the order in which one process makes them, so that sums
    over them have the same last bit.
    """
    if share()[1] == 1:
        yield from mine
        return
    while things := [thing for thing in _gathered(next(mine, None)) if thing is not None]:
        yield from things


def summed(number: float) -> float:
    """The sum over all ranks."""
    return number if share()[1] == 1 else sum(_gathered(number))


def _gathered(thing: T) -> list[T]:
    """What each rank brought. Between processes of one run on gloo, and never from a file."""
    found: list[T] = [thing] * share()[1]
    try:
        if not dist.is_initialized():
            dist.init_process_group("gloo")
            atexit.register(dist.destroy_process_group)
        dist.all_gather_object(found, thing)
    except RuntimeError as error:  # gloo's words for a rank that is gone
        raise CmtoolError(f"rank {share()[0]} waited for one that ended early", "the other one says why") from error
    return found
