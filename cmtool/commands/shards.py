"""Which part of the images this process makes."""

import os
from collections.abc import Mapping

from cmtool.errors import UsageError

__all__ = ["shard_of"]


def shard_of(given: str | None, environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """Part (from 1) and number of parts: ``3/8`` as (3, 8), of which each rank of torchrun has an equal share.

    Rank r of w in part k of n has part ``(k - 1) w + r + 1`` of ``n w``. UsageError for ranks that are no numbers.
    """
    part, parts = map(int, (given or "1/1").split("/"))
    rank, world = environment.get("RANK", "0"), environment.get("WORLD_SIZE", "1")
    if not (rank.isdecimal() and world.isdecimal() and int(rank) < int(world)):
        raise UsageError(f"RANK={rank} and WORLD_SIZE={world} are no rank of a group of processes", "unset both")
    return (part - 1) * int(world) + int(rank) + 1, parts * int(world)
