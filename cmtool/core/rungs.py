"""Noise levels of models that were defined on numbered steps, ascending, and the number that belongs to a level."""

from collections.abc import Callable

import torch
from torch import Tensor

from cmtool.core.ladders import DDPM, NCSN
from cmtool.errors import UsageError, unknown

__all__ = ["SCHEDULES", "ddpm", "geometric", "nearest", "rung"]

SCHEDULES: dict[str, Callable[..., DDPM]] = {"linear": DDPM.linear, "cosine": DDPM.cosine}


def geometric(n: int, sigma_min: float, sigma_max: float) -> Tensor:
    """``n`` levels in equal ratios (Song and Ermon 2019, arXiv 1907.05600), float64 [n]."""
    if n < 2:
        raise UsageError(f"a ladder of noise levels needs 2 or more, not {n}")
    return NCSN.geometric(n, sigma_min, sigma_max).sigmas


def ddpm(n: int = 1000, schedule: str = "linear", **options: float) -> Tensor:
    """DDPM's steps as levels: ``sigma_i = sqrt(1 / abar_i - 1)``, ``abar_i = prod (1 - beta_j)``, float64 [n].

    ``options`` are the ladder's: ``beta_min`` and ``beta_max`` of the linear one, ``shift`` and ``most`` of the cosine
    one.
    """
    if schedule not in SCHEDULES:
        raise unknown("schedule", schedule, SCHEDULES)
    if n <= 20:
        raise UsageError(f"'ddpm' needs more than 20 steps, not {n}", "1000 is usual")
    return SCHEDULES[schedule](n, **options).level(torch.arange(1, n + 1, dtype=torch.float64))


def rung(sigma: Tensor, ladder: Tensor) -> Tensor:
    """The number of the rung, 0 for the lowest; between rungs it is interpolated in ln sigma."""
    rungs = ladder.to(sigma).log()
    level = sigma.log().clamp(rungs[0], rungs[-1])
    above = torch.searchsorted(rungs, level.contiguous()).clamp(1, len(rungs) - 1)
    low, high = rungs[above - 1], rungs[above]
    return above - 1 + (level - low) / (high - low)


def nearest(sigma: Tensor, ladder: Tensor) -> Tensor:
    """The number of the nearest rung, int64: ``ladder[nearest(sigma, ladder)]`` is sigma rounded to the ladder."""
    middles = ladder.to(sigma).unfold(0, 2, 1).mean(1)
    return torch.searchsorted(middles, sigma.contiguous())
