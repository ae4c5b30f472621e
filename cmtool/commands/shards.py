"""Which part of the images this process makes."""

import os
from collections.abc import Mapping

import torch

from cmtool.errors import UsageError

__all__ = ["local_device", "shard_of"]


def shard_of(given: str | None, environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """Part (from 1) and number of parts: ``3/8`` as (3, 8), of which each rank of torchrun has an equal share.

    Rank r of w in part k of n has part ``(k - 1) w + r + 1`` of ``n w``. UsageError for ranks that are no numbers.
    """
    part, parts = map(int, (given or "1/1").split("/"))
    rank, world = environment.get("RANK", "0"), environment.get("WORLD_SIZE", "1")
    if not (rank.isdecimal() and world.isdecimal() and len(rank + world) < 20 and int(rank) < int(world)):
        raise UsageError(f"RANK={rank} and WORLD_SIZE={world} are no rank of a group of processes", "unset both")
    return (part - 1) * int(world) + int(rank) + 1, parts * int(world)


def local_device(name: str, environment: Mapping[str, str] = os.environ) -> str:
    """The device of a rank of torchrun on a machine with several GPUs: its own, unless one was named by number."""
    rank, count = environment.get("LOCAL_RANK", ""), torch.cuda.device_count()
    return f"cuda:{int(rank) % count}" if name in ("auto", "cuda") and rank.isdecimal() and count > 1 else name
