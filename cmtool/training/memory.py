"""How much memory is free, and how many threads may read: found out before either is spent."""

import os
import re
from pathlib import Path

import torch

try:
    from os import sched_getaffinity
except ImportError:  # where a system does not say which cores a job may use
    sched_getaffinity = None

__all__ = ["free_memory", "reading_threads"]

UNKNOWN = 2 << 30  # bytes, where the system does not say
MOST_THREADS = 8
LIMITS = (  # of a container: the most it may use, what it uses, and the key of what it would give back
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "inactive_file"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        "total_inactive_file",
    ),
)


def free_memory(device: torch.device) -> int:
    """Bytes that this process can still take on a device; those of the processor are shared with the other ranks here.

    On the processor this is what the system has available, or what is left of the limit of a container where that is
    less; 2 GB where neither can be read.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    available = _number_after(Path("/proc/meminfo"), "MemAvailable:")  # in KB
    found = [None if available is None else 1024 * available, *map(_left_of, LIMITS)]
    return min((value for value in found if value is not None), default=UNKNOWN) // _local_ranks()


def reading_threads() -> int:
    """Threads that read images beside a training loop: the cores of this process, shared with the other ranks here."""
    cores = len(sched_getaffinity(0)) if sched_getaffinity else os.cpu_count() or 1
    return max(1, min(MOST_THREADS, cores // _local_ranks()))


def _local_ranks() -> int:
    """Processes that a launcher has started on this machine: torchrun says how many, or srun, as in ``4(x2)``."""
    told = (os.environ.get(name, "") for name in ("LOCAL_WORLD_SIZE", "SLURM_STEP_TASKS_PER_NODE"))
    numbers = (re.match(r"\d+", text) for text in told)
    return max(1, next((int(number[0]) for number in numbers if number), 1))


def _left_of(limit: tuple[str, str, str]) -> int | None:
    most, used = (_number(Path(name)) for name in limit[:2])
    if most is None or used is None:
        return None
    cached = _number_after(Path(limit[1]).parent / "memory.stat", limit[2]) or 0
    return max(0, most - used + cached)


def _number(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _number_after(path: Path, key: str) -> int | None:
    """The number after a key at the start of a line."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    words = next((line.split() for line in lines if line.split()[:1] == [key]), [])
    return int(words[1]) if len(words) > 1 and words[1].isdigit() else None
