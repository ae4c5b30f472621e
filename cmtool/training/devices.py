"""Where to compute, with how many threads, and in which precision."""

import math
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch

from cmtool.errors import Hint, Setting, UsageError

__all__ = [
    "choose_device",
    "choose_parallel",
    "micro_batch_size",
    "precision",
    "precision_name",
    "usable_cores",
    "use_threads",
]


def choose_device(name: str = "auto") -> torch.device:
    """``auto`` is the first accelerator that is there, else the CPU; UsageError for one that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if _mps() else "cpu")
    try:
        chosen = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"'{name}' is not a device", "use auto, cpu, cuda, cuda:1 or mps") from error
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": _mps()}.get(chosen.type, False)
    if not there or (chosen.index or 0) >= max(torch.cuda.device_count(), 1):
        hint = Hint("leave out {}, or use {}", Setting("device"), Setting("device", "cpu"))
        raise UsageError(f"there is no device '{name}' here", hint)
    return chosen


def _mps() -> bool:
    return torch.backends.mps.is_available()


def usable_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def use_threads(n: int | None) -> None:
    """Threads of the CPU; None is every core this process may use."""
    torch.set_num_threads(n or usable_cores())


def precision_name(name: str, where: torch.device) -> str:
    """``auto`` is bf16 on GPUs that have it and fp32 elsewhere: on most CPUs bfloat16 is slower."""
    if name != "auto":
        return name
    return "bf16" if where.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"


def precision(name: str, where: torch.device) -> Callable[[], AbstractContextManager]:
    """The context of a loss: bfloat16 autocast, or none for float32; ``auto`` as in ``precision_name``."""
    if precision_name(name, where) == "fp32":
        return nullcontext
    return lambda: torch.autocast(where.type, dtype=torch.bfloat16)


def choose_parallel(name: str, where: torch.device) -> str:
    """How ranks share a batch: ``auto`` is "ddp" on CUDA, and else "exact", which costs little there."""
    return ("ddp" if where.type == "cuda" else "exact") if name == "auto" else name


def micro_batch_size(batch: int, shape: tuple[int, ...], where: torch.device) -> int:
    """Images of a batch to compute at once: on the processor a quarter of it, or more of small images; else all.

    At least 2048 pixels, since every call of a kernel has a price, and at least 8 images.
    """
    least = max(8, 2048 // math.prod(shape[1:]))
    return min(max(math.ceil(batch / 4), least), batch) if where.type == "cpu" else batch
