"""Several processes: which part of the images this one makes, and how the ranks of torchrun share results."""

import atexit
import os
from collections.abc import Iterator, Mapping
from typing import TypeVar

import torch
import torch.distributed as dist

from cmtool.errors import CmtoolError, UsageError

__all__ = [
    "gather_in_turn",
    "has_stray_rank",
    "is_main_rank",
    "launched_by",
    "local_device",
    "rank_and_world",
    "shard_of",
    "sum_over_ranks",
]


def shard_of(given: str | None, environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """Part (from 1) and number of parts: ``3/8`` as (3, 8), of which each rank of torchrun has an equal share.

    Rank r of w in part k of n has part ``(k - 1) w + r + 1`` of ``n w``. Ranks that no launcher has set do not count:
    they were left over. UsageError for ranks that are no numbers.
    """
    part, parts = map(int, (given or "1/1").split("/"))
    if not launched_by(environment):
        return part, parts
    rank, world = environment.get("RANK", "0"), environment.get("WORLD_SIZE", "1")
    if not (rank.isdecimal() and world.isdecimal() and len(rank + world) < 20 and int(rank) < int(world)):
        raise UsageError(f"RANK={rank} and WORLD_SIZE={world} are no rank of a group of processes", "unset both")
    return (part - 1) * int(world) + int(rank) + 1, parts * int(world)


def launched_by(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this is a process of several: their launcher also says where they meet."""
    return "TORCHELASTIC_RUN_ID" in environment or ("MASTER_ADDR" in environment and "MASTER_PORT" in environment)


def has_stray_rank(environment: Mapping[str, str] = os.environ) -> str | None:
    """The warning about ranks that do not count."""
    rank, world = environment.get("RANK"), environment.get("WORLD_SIZE", "1")
    if launched_by(environment) or rank is None or world in ("", "1"):
        return None
    return (
        f"RANK={rank} and WORLD_SIZE={world} are set, and no launcher such as torchrun has started this process; "
        "they do not count, and everything is made here"
    )


def local_device(name: str, environment: Mapping[str, str] = os.environ) -> str:
    """The device of a rank of torchrun on a machine with several GPUs: its own, unless one was named by number."""
    rank = environment.get("LOCAL_RANK", "") if launched_by(environment) else ""
    count = torch.cuda.device_count()
    return f"cuda:{int(rank) % count}" if name in ("auto", "cuda") and rank.isdecimal() and count > 1 else name


T = TypeVar("T")


def rank_and_world() -> tuple[int, int]:
    """The rank of this process, and how many there are."""
    part, parts = shard_of(None)
    return part - 1, parts


def is_main_rank() -> bool:
    """Whether this process is the one that tells the result."""
    return rank_and_world()[0] == 0


def gather_in_turn(mine: Iterator[T]) -> Iterator[T]:
    """The things of all ranks, on every rank: the first of each in the order of the ranks, then the second of each.

    Where thing k of a work is made by rank k mod w, that is the order in which one process makes them, so that sums
    over them have the same last bit.
    """
    if rank_and_world()[1] == 1:
        yield from mine
        return
    while things := [thing for thing in _all_gather(next(mine, None)) if thing is not None]:
        yield from things


def sum_over_ranks(number: float) -> float:
    """The sum over all ranks."""
    return number if rank_and_world()[1] == 1 else sum(_all_gather(number))


def _all_gather(thing: T) -> list[T]:
    """What each rank brought. Between processes of one run on gloo, and never from a file."""
    found: list[T] = [thing] * rank_and_world()[1]
    try:
        if not dist.is_initialized():
            dist.init_process_group("gloo")
            atexit.register(dist.destroy_process_group)
        dist.all_gather_object(found, thing)
    except RuntimeError as error:  # gloo's words for a rank that is gone
        raise CmtoolError(
            f"rank {rank_and_world()[0]} waited for one that ended early", "the other one says why"
        ) from error
    return found
