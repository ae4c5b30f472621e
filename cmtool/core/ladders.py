"""Noise levels of models that were defined on numbered steps, ascending: NCSN's ladder and DDPM's."""

import math

import torch
from torch import Tensor

from cmtool.errors import UsageError, unknown

__all__ = ["SCHEDULES", "ddpm", "geometric", "rung"]


def geometric(n: int, sigma_min: float, sigma_max: float) -> Tensor:
    """``n`` levels in equal ratios (Song and Ermon 2019, arXiv 1907.05600), float64 [n]."""
    if n < 2:
        raise UsageError(f"a ladder of noise levels needs 2 or more, not {n}")
    return torch.linspace(math.log(sigma_min), math.log(sigma_max), n, dtype=torch.float64).exp()


def linear(n: int) -> Tensor:
    """``beta_i`` from 0.1/n to 20/n in equal steps, 1e-4 to 0.02 for n = 1000 (Ho et al. 2020, arXiv 2006.11239)."""
    return torch.linspace(0.1 / n, 20 / n, n, dtype=torch.float64)


def cosine(n: int) -> Tensor:
    """``beta_i`` of ``abar(t) = cos^2(pi/2 (t + 0.008)/1.008)``, at most 0.999 (Nichol and Dhariwal 2021, eq. 17)."""
    t = torch.linspace(0, 1, n + 1, dtype=torch.float64)
    kept = ((t + 0.008) / 1.008 * math.pi / 2).cos() ** 2
    return (1 - kept[1:] / kept[:-1]).clamp(max=0.999)


SCHEDULES = {"linear": linear, "cosine": cosine}


def ddpm(n: int = 1000, schedule: str = "linear") -> Tensor:
    """DDPM's steps as levels: ``sigma_i = sqrt(1 / abar_i - 1)``, ``abar_i = prod (1 - beta_j)``, float64 [n]."""
    if schedule not in SCHEDULES:
        raise unknown("schedule", schedule, SCHEDULES)
    if n <= 20:
        raise UsageError(f"'ddpm' needs more than 20 steps, not {n}", "1000 is usual")
    return torch.expm1(-torch.log1p(-SCHEDULES[schedule](n)).cumsum(0)).sqrt()


def rung(sigma: Tensor, ladder: Tensor) -> Tensor:
    """The number of the rung, 0 for the lowest; between rungs it is interpolated in ln sigma."""
    rungs = ladder.to(sigma).log()
    level = sigma.log().clamp(rungs[0], rungs[-1])
    above = torch.searchsorted(rungs, level.contiguous()).clamp(1, len(rungs) - 1)
    low, high = rungs[above - 1], rungs[above]
    return above - 1 + (level - low) / (high - low)
