"""The learning rate over a run: the schedules that a user names, and what they make of the rate."""

import math
from collections.abc import Callable

__all__ = ["LR_SCHEDULES", "learning_rate"]

# The factor on the rate after the warm-up: of progress p through the rest, and of images seen per image of the hold.
LR_SCHEDULES: dict[str, Callable[[float, float], float]] = {
    "constant": lambda p, seen: 1.0,
    "cosine": lambda p, seen: 0.5 * (1 + math.cos(math.pi * p)),
    "linear": lambda p, seen: 1 - p,
    "sqrt": lambda p, seen: 1 / math.sqrt(max(seen, 1)),
}


def learning_rate(base: float, images: int, total: int, warmup: int, schedule: str, hold: int | None = None) -> float:
    """Linear warm-up over ``warmup`` images, times the factor of ``schedule`` over the rest of the run.

    "sqrt" is ``sqrt(hold / images)`` from ``hold`` images on, by default from the end of the warm-up; the source holds
    for 70,000 batches.
    Source of "sqrt": Karras et al. 2024, arXiv 2312.02696, appendix B.
    """
    rate = base * (images + 1) / warmup if images < warmup else base
    progress = min(max(images - warmup, 0) / max(total - warmup, 1), 1.0)
    return rate * LR_SCHEDULES[schedule](progress, images / max(hold or warmup, 1))
