"""What the ranks settle in each step before anything is sent: whether all go on, and with which micro-batch."""

import gc
from collections.abc import Iterator

import torch

from cmtool.errors import Advice, CmtoolError, Hint, LostRank, OutOfMemory, Setting, is_out_of_memory
from cmtool.training.gradients import Engine, LoopConfig, micro_batch_of
from cmtool.training.state import State

__all__ = ["idle_ranks", "prepare_together"]


def prepare_together(engine: Engine, state: State, config: LoopConfig, size: int, progress: float) -> tuple[int, ...]:
    """Each rank computes its part of a batch of ``size`` images; the numbers that they polled.

    When memory runs out on one of them, all do so again with micro-batches of half the size, and keep to them. Nothing
    that is trained has changed meanwhile. OutOfMemory on all ranks where one image at a time is too much; of an error
    of another kind, itself where it arose and LostRank on the others; CmtoolError where a rank is at another step.
    """
    ranks = config.ranks
    while True:
        micro = micro_batch_of(state, config, size)
        failure, full = _attempt(engine, micro, progress)
        failed = ranks.size - ranks.rank if failure else 0  # so that the first of them is the largest
        clock = [state.images, state.skipped]
        own = [failed, int(full), *clock, *(-n for n in clock), *config.poll()]
        failed, full, *agreed = ranks.maximum(own)
        if failed:
            raise failure or LostRank(f"rank {ranks.size - failed} of {ranks.size} failed", "it says why")
        if agreed[:2] != [-n for n in agreed[2:4]]:
            raise CmtoolError(
                f"rank {ranks.rank} of {ranks.size} is at {state.images:,} images, another one at {agreed[0]:,}",
                "they must go on from the same state",
            )
        if not full:
            return tuple(agreed[4:])
        if micro == 1:
            hint = Hint("a smaller network needs less, or {}", Setting("precision", "bf16"))
            raise OutOfMemory("there is not enough memory to train on one image at a time", hint)
        state.micro = micro // 2
        _free()


def idle_ranks(kind: str, config: LoopConfig, count: int) -> Iterator[Advice]:
    """What is to be said where not every rank has one of ``count`` micro-batches."""
    if kind == "exact" and count < config.ranks.size:
        only, most = "1 micro-batch" if count == 1 else f"{count} micro-batches", f"{config.ranks.size} ranks"
        yield Hint("there is {} for {}, and the others idle: give a smaller {}", only, most, Setting("micro_batch"))


def _attempt(engine: Engine, micro: int, progress: float) -> tuple[Exception | None, bool]:
    """What went wrong, and whether it was memory; then nothing holds what had been computed."""
    try:
        engine.prepare(micro, progress)
    except Exception as error:
        return (None, True) if is_out_of_memory(error) else (error, False)
    return None, False


def _free() -> None:
    gc.collect()  # frames that an error went through
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
