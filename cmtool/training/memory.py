"""How much memory is free, and how many threads may read: found out before either is spent."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

try:
    from os import sched_getaffinity
except ImportError:  # where a system does not say which cores a job may use
    sched_getaffinity = None

__all__ = ["free_memory", "reading_threads"]

UNKNOWN = 2 << 30  # bytes, where the system does not say
MOST_THREADS = 8
CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Control:
    """Where a version of control groups keeps a limit: below which folder, and the names of limit, use and cache."""

    root: str
    limit: str
    used: str
    cached: str


FIRST = Control("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
SECOND = Control("", "memory.max", "memory.current", "inactive_file")


def free_memory(device: torch.device) -> int:
    """Bytes that this process can still take on a device; those of the processor are shared with the other ranks here.

    On the processor this is what the system has available, or what is left of the limit of a container or of a job of a
    scheduler where that is less; 2 GB where none can be read.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    available = _number_after(Path("/proc/meminfo"), "MemAvailable:")  # in KB
    found = [] if available is None else [1024 * available]
    return min([*found, *_left_in_groups()], default=UNKNOWN) // _local_ranks()


def reading_threads() -> int:
    """Threads that read images beside a training loop: the cores of this process, shared with the other ranks here."""
    cores = len(sched_getaffinity(0)) if sched_getaffinity else os.cpu_count() or 1
    return max(1, min(MOST_THREADS, cores // _local_ranks()))


def _local_ranks() -> int:
    """Processes that a launcher has started on this machine: torchrun says how many, or srun, as in ``4(x2)``."""
    told = (os.environ.get(name, "") for name in ("LOCAL_WORLD_SIZE", "SLURM_STEP_TASKS_PER_NODE"))
    numbers = (re.match(r"\d+", text) for text in told)
    return max(1, next((int(number[0]) for number in numbers if number), 1))


def _left_in_groups() -> Iterator[int]:
    """What is left in the control group of this process and in those around it, as far as they have limits."""
    for line in _lines(Path("/proc/self/cgroup")):
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "" or "memory" in controllers.split(","):
            control = FIRST if controllers else SECOND
            root = CGROUPS / control.root
            group = root / path.strip("/")
            for folder in (group, *group.parents):
                yield from _left_of(folder, control)
                if folder == root:
                    break


def _left_of(group: Path, control: Control) -> Iterator[int]:
    most, used = ("".join(_lines(group / name)).strip() for name in (control.limit, control.used))
    if most.isdigit() and used.isdigit():
        yield max(0, int(most) - int(used) + (_number_after(group / "memory.stat", control.cached) or 0))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def _number_after(path: Path, key: str) -> int | None:
    """The number after a key at the start of a line."""
    words = next((line.split() for line in _lines(path) if line.split()[:1] == [key]), [])
    return int(words[1]) if len(words) > 1 and words[1].isdigit() else None
