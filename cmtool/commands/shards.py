"""Which part of the images this process makes."""

import os
from collections.abc import Mapping

import torch

from cmtool.errors import UsageError

__all__ = ["launched", "local_device", "shard_of", "stray"]


def shard_of(given: str | None, environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """Part (from 1) and number of parts: ``3/8`` as (3, 8), of which each rank of torchrun has an equal share.

    Rank r of w in part k of n has part ``(k - 1) w + r + 1`` of ``n w``. Ranks that no launcher has set do not count:
    they were left over. UsageError for ranks that are no numbers.
    """
    part, parts = map(int, (given or "1/1").split("/"))
    if not launched(environment):
        return part, parts
    rank, world = environment.get("RANK", "0"), environment.get("WORLD_SIZE", "1")
    if not (rank.isdecimal() and world.isdecimal() and len(rank + world) < 20 and int(rank) < int(world)):
        raise UsageError(f"RANK={rank} and WORLD_SIZE={world} are no rank of a group of processes", "unset both")
    return (part - 1) * int(world) + int(rank) + 1, parts * int(world)


def launched(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this is a process of several: their launcher also says where they meet."""
    return "TORCHELASTIC_RUN_ID" in environment or ("MASTER_ADDR" in environment and "MASTER_PORT" in environment)


def stray(environment: Mapping[str, str] = os.environ) -> str | None:
    """What there is to be told of ranks that do not count."""
    rank, world = environment.get("RANK"), environment.get("WORLD_SIZE", "1")
    if launched(environment) or rank is None or world in ("", "1"):
        return None
    return (
        f"RANK={rank} and WORLD_SIZE={world} are set, and no launcher such as torchrun has started this process; "
        "they do not count, and everything is made here"
    )


def local_device(name: str, environment: Mapping[str, str] = os.environ) -> str:
    """The device of a rank of torchrun on a machine with several GPUs: its own, unless one was named by number."""
    rank = environment.get("LOCAL_RANK", "") if launched(environment) else ""
    count = torch.cuda.device_count()
    return f"cuda:{int(rank) % count}" if name in ("auto", "cuda") and rank.isdecimal() and count > 1 else name
