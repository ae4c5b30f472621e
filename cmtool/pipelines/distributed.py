"""Several processes: the group of the ranks, and how they share results and end together."""

import atexit
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import count
from typing import TypeVar

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from cmtool.errors import Diverged, LostRank
from cmtool.pipelines.failure_watch import FAILURE, FailureWatch
from cmtool.pipelines.launcher import World, find_world, has_stray_rank, meeting_place, shard_of
from cmtool.text_files import dump_json
from cmtool.training.devices import usable_cores
from cmtool.training.ranks import ALONE, GroupRanks, Ranks, lost_rank

__all__ = [
    "LostRank",
    "World",
    "claim_failure",
    "failure_code",
    "find_world",
    "gather_in_turn",
    "has_stray_rank",
    "is_main_rank",
    "largest_over_ranks",
    "local_device",
    "rank_and_world",
    "ranks_of",
    "report_lost_rank",
    "run_on_main",
    "shard_of",
    "split_seeds",
    "start_group",
    "sum_over_ranks",
    "threads_of",
    "wait_for_ranks",
]

START = 600.0  # seconds in which all ranks must have started: they read their libraries from one busy disk
PATIENCE = 3600.0  # seconds that it waits where one may have much to read
TIMEOUT = 120.0  # seconds that a rank waits for another one afterwards
PAUSE = 0.05  # seconds between two looks into the store

T = TypeVar("T")


def start_group(world: World, device: torch.device, timeout: float = TIMEOUT) -> None:
    """Make the default group of ``torch.distributed``, once: gloo on the CPU, and NCCL beside it on CUDA.

    The ranks may start up to ten minutes apart; after that no rank waits longer than ``timeout`` seconds for
    another. Ranks that torchrun has started anew never meet what those before them left in its store. The group ends
    with the process. LostRank where the ranks do not meet.
    """
    if world.size == 1 or dist.is_initialized():
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    with report_lost_rank(world):
        store = _assemble(PrefixStore("cmtool", _meet(world)), world)
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        waiting = timedelta(seconds=timeout)
        dist.init_process_group(backend, store=store, rank=world.rank, world_size=world.size, timeout=waiting)
    _STORES[:], _WATCHES[:] = [store], [FailureWatch(store, world.rank, world.size)]
    atexit.register(_end_group)


_STORES: list[Store] = []  # of the group of this process, through which ranks also reach each other in trouble
_WATCHES: list[FailureWatch] = []
_CALLS = count()


def _meet(world: World) -> Store:
    """The store of torchrun's agent; of srun's ranks the first one has it."""
    place = "env://" if world.launcher == "torchrun" else "tcp://{}:{}".format(*meeting_place())
    url = f"{place}?rank={world.rank}&world_size={world.size}"
    store, _, _ = next(rendezvous(url, timeout=timedelta(seconds=START)))
    return store


def _assemble(store: Store, world: World) -> Store:
    """The part of the store for this start of the ranks, when all of them are there.

    torchrun starts all ranks anew when one has died, with the same store, in which the dead ones have left their
    addresses. The first rank counts these starts; the others join the newest that is not complete. (The count of
    torchrun itself is not the same on all nodes: those where nobody died do not count.)
    """
    until, joined = time.monotonic() + START, 0
    if world.main:
        joined = store.add("start", 1)
    while time.monotonic() < until:
        if world.main and store.add(f"here/{joined}", 0) == world.size - 1:
            store.set(f"complete/{joined}", "1")
        if joined and store.check([f"complete/{joined}"]):
            return PrefixStore(f"start/{joined}", store)
        newest = store.add("start", 0)
        if newest > joined and not store.check([f"complete/{newest}"]):
            joined = newest
            store.add(f"here/{joined}", 1)
        time.sleep(PAUSE)
    raise lost_rank(world.rank)


def _end_group() -> None:
    for watch in _WATCHES:
        watch.close()
    _STORES.clear()
    if dist.is_initialized():
        dist.destroy_process_group()


@contextmanager
def report_lost_rank(world: World) -> Iterator[None]:
    """What torch says of a rank that is gone or silent becomes a LostRank; gloo's errors have no class of their own."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or "gloo" in str(error):
            raise lost_rank(world.rank) from error
        raise


def local_device(name: str, environment: Mapping[str, str] = os.environ) -> str:
    """The device of a rank on a machine with several GPUs: its own, unless one was named by number."""
    world, gpus = find_world(environment), torch.cuda.device_count()
    ours = name in ("auto", "cuda") and world.launcher != "single" and gpus > 1
    return f"cuda:{world.local_rank % gpus}" if ours else name


def ranks_of(world: World, device: torch.device) -> Ranks:
    """The ranks that train together, in a group that is started if it is not yet."""
    start_group(world, device)
    return GroupRanks() if world.size > 1 else ALONE


def threads_of(threads: int | None, environment: Mapping[str, str] = os.environ) -> int | None:
    """The threads of a rank: those that were asked for, or its share of the cores of its machine; None for all of them.

    srun gives each rank cores of its own; torchrun does not, and says how many ranks share them.
    """
    beside = environment.get("LOCAL_WORLD_SIZE", "1")
    if threads or find_world(environment).launcher != "torchrun" or not beside.isdecimal() or beside in ("0", "1"):
        return threads
    return max(usable_cores() // int(beside), 1)


def rank_and_world() -> tuple[int, int]:
    """The rank of this process, and how many there are."""
    world = find_world()
    return world.rank, world.size


def split_seeds(seeds: Sequence[int], size: int, rank: int, world: int) -> Sequence[int]:
    """The seeds of a rank: of every ``world`` batches one."""
    if world == 1:
        return seeds
    return [seed for first in range(rank * size, len(seeds), world * size) for seed in seeds[first : first + size]]


def is_main_rank() -> bool:
    """Whether this process is the one that tells the result."""
    return find_world().main


def gather_in_turn(mine: Iterator[T]) -> Iterator[T]:
    """The things of all ranks, on every rank: the first of each in the order of the ranks, then the second of each.

    Where thing k of a work is made by rank k mod w, that is the order in which one process makes them, so that sums
    over them have the same last bit. A model that diverges on one rank does so on all: Diverged.
    """
    if find_world().size == 1:
        yield from mine
        return
    while things := [thing for thing in _all_gather(_next_or_error(mine)) if thing is not None]:
        for thing in things:
            if isinstance(thing, Diverged):
                raise thing
            yield thing


def _next_or_error(mine: Iterator[T]) -> T | Diverged | None:
    try:
        return next(mine, None)
    except Diverged as error:
        return error


def sum_over_ranks(number: float) -> float:
    """The sum over all ranks."""
    return number if find_world().size == 1 else sum(_all_gather(number))


def largest_over_ranks(number: int) -> int:
    """The largest number of any rank, such as that of a signal which one of them got."""
    return number if find_world().size == 1 else max(_all_gather(number))


def _all_gather(thing: T) -> list[T]:
    """What each rank brought. Between processes of one run on gloo, and never from a file."""
    world = find_world()
    found: list[T] = [thing] * world.size
    start_group(world, torch.device("cpu"))
    with report_lost_rank(world):
        dist.all_gather_object(found, thing)
    return found


def run_on_main(world: World, work: Callable[[], T]) -> T:
    """Let the first rank alone do ``work``, such as drawing samples; the others wait, however long it takes.

    All ranks call this at the same point, and all get what the work gives, which JSON can hold. LostRank on the others
    where the first rank fails; where it was killed the launcher ends them.
    """
    if not _STORES:
        return work()
    store, done = _STORES[0], f"done/{next(_CALLS)}"
    if world.main:
        found = work()
        with report_lost_rank(world):
            store.set(done, dump_json(found))
    with report_lost_rank(world):
        while not store.check([done]):
            if store.check([FAILURE]):
                raise lost_rank(world.rank)
            time.sleep(PAUSE)
        found = json.loads(store.get(done))
        dist.all_reduce(torch.zeros(1))  # so that none of them leaves, with the store, while another one looks there
    return found


def wait_for_ranks(world: World) -> None:
    """Wait until all ranks are here, which may take them an hour, as to open data; LostRank where one fails."""
    if not _STORES:
        return
    store, here, until = _STORES[0], f"here/{next(_CALLS)}", time.monotonic() + PATIENCE
    with report_lost_rank(world):
        store.add(here, 1)
        while store.add(here, 0) < world.size:
            if store.check([FAILURE]) or time.monotonic() > until:
                raise lost_rank(world.rank)
            time.sleep(PAUSE)


def claim_failure(code: int) -> bool:
    """Tell the other ranks that this one ends with an exit code; False where another one was first."""
    return not _WATCHES or _WATCHES[0].claim(code)


def failure_code() -> int | None:
    """The exit code of the rank that failed first, or None where none says within seconds that it did."""
    return _WATCHES[0].wait() if _WATCHES else None
