"""Which noise levels training visits: a level or a pair of levels from one uniform number per image."""

import math

import torch
from torch import Tensor

from cmtool.core.discrete_processes import nearest_step
from cmtool.core.process import Process
from cmtool.core.sigma_schedules import karras

__all__ = [
    "adjacent_log_normal",
    "adjacent_pair",
    "doubling_steps",
    "ect_ratio",
    "ect_stage",
    "halving_steps",
    "log_normal",
    "log_student",
    "on_grid",
    "openai_ema_decay",
    "openai_steps",
    "split_uniform",
    "uniform_step",
    "uniform_time",
]


def split_uniform(u: Tensor, n: int) -> list[Tensor]:
    """``n`` independent uniform numbers from one on (0, 1), float64 [B]: each takes its share of the 52 bits."""
    parts, steps = [], 2 ** (52 // n)
    for _ in range(n):
        scaled = u * steps
        parts.append(((scaled.floor() + 0.5) / steps).to(u))
        u = scaled - scaled.floor()
    return parts


def log_normal(u: Tensor, P_mean: float = -1.2, P_std: float = 1.2) -> Tensor:
    """``ln sigma ~ N(mean, std^2)`` by inversion, [B] (Karras et al. 2022, arXiv 2206.00364, table 1)."""
    return (P_mean + P_std * torch.special.ndtri(u)).exp()


def uniform_time(u: Tensor, process: Process, start: float, stop: float = 1.0) -> Tensor:
    """The level of a time that is uniform on [``start``, ``stop``], [B]."""
    return process.sigma(start + u * (stop - start))


def uniform_step(u: Tensor, ladder: Tensor) -> Tensor:
    """One of the levels of a ladder, each as likely as the others, [B]."""
    return ladder.to(u)[(u * len(ladder)).long().clamp(max=len(ladder) - 1)]


def adjacent_pair(u: Tensor, n: int, sigma_min: float, sigma_max: float, rho: float = 7.0) -> tuple[Tensor, Tensor]:
    """A uniformly chosen pair of neighbours ``t > r`` on the Karras grid of ``n`` levels (Song et al. 2023, alg. 2)."""
    grid = karras(n, sigma_min, sigma_max, rho).to(u)
    i = (u * (n - 1)).long().clamp(max=n - 2)
    return grid[i], grid[i + 1]


def adjacent_log_normal(
    u: Tensor, n: int, P_mean: float, P_std: float, sigma_min: float, sigma_max: float, rho: float = 7.0
) -> tuple[Tensor, Tensor]:
    """A pair of neighbours ``t > r``, [B], as likely as ``r < sigma < t`` where ``ln sigma ~ N(mean, std^2)``.

    On the Karras grid of n levels (Song and Dhariwal 2023, arXiv 2310.14189, eq. 13).
    """
    grid = karras(n, sigma_min, sigma_max, rho).to(u).flip(0)
    below = torch.special.ndtr((grid.log() - P_mean) / P_std)
    i = torch.searchsorted(below, below[0] + u * (below[-1] - below[0])).clamp(1, n - 1)
    return grid[i], grid[i - 1]


def log_student(u: Tensor, low: float, high: float, df: float, scale: float) -> Tensor:
    """A level from ``low`` to ``high`` whose ln has the density ``(1 + (ln sigma / scale)^2 / df)^(-(df + 1)/2)``, [B].

    By inversion: in ``y = asinh(ln sigma / (scale sqrt(df)))`` the density is cosh(y)^-df, flat for small df, and its
    integral is taken from a table (Lee et al. 2024, arXiv 2410.14895, section 4).
    """
    width = scale * math.sqrt(df)
    first, last = (math.asinh(math.log(level) / width) for level in (low, high))
    y = torch.linspace(first, last, 4097, dtype=torch.float64).to(u)
    mass = torch.cumulative_trapezoid(y.cosh() ** -df, y)
    mass = torch.cat([mass.new_zeros(1), mass]) / mass[-1]
    i = torch.searchsorted(mass, u.contiguous()).clamp(1, len(y) - 1)
    part = (u - mass[i - 1]) / (mass[i] - mass[i - 1])
    return (width * (y[i - 1] + part * (y[i] - y[i - 1])).sinh()).exp().clamp(low, high)


def openai_steps(progress: float, s0: int, s1: int) -> int:
    """``N = ceil(sqrt(p ((s1 + 1)^2 - s0^2) + s0^2) - 1) + 1`` levels at progress p (Song et al. 2023, app. C)."""
    return max(math.ceil(math.sqrt(progress * ((s1 + 1) ** 2 - s0**2) + s0**2) - 1), 1) + 1


def openai_ema_decay(levels: int, s0: int, rate: float, convention: str = "paper") -> float:
    """``mu = exp(s0 ln mu0 / N)``, the decay of the target; the code of the paper's authors takes N before its + 1."""
    return math.exp(s0 * math.log(rate) / (levels if convention == "paper" else levels - 1))


def doubling_steps(progress: float, s0: int, s1: int) -> int:
    """``N = min(s0 2^floor(p (log2 floor(s1/s0) + 1)), s1) + 1`` (Song and Dhariwal 2023, arXiv 2310.14189, eq. 12)."""
    stages = math.log2(s1 // s0) + 1
    return min(s0 * 2 ** math.floor(progress * stages), s1) + 1


def halving_steps(progress: float, first: int, last: int = 1) -> int:
    """N at progress p when N halves from ``first`` to ``last`` in equal stages, those of 2 and 1 steps twice as long.

    As in the code of Song et al. 2023.
    """
    stages = [first >> k for k in range((first // last).bit_length())]
    plan = [n for n in stages for _ in range(2 if n <= 2 else 1)]
    return plan[min(int(progress * len(plan)), len(plan) - 1)]


def ect_ratio(t: Tensor, stage: float, q: float = 2.0, k: float = 8.0, b: float = 1.0) -> Tensor:
    """``r = max(0, t (1 - (1 + k sigmoid(-b t)) / q^(stage + 1)))`` (Geng et al. 2024, arXiv 2406.14548)."""
    return (t * (1 - (1 + k * torch.sigmoid(-b * t)) / q ** (stage + 1))).clamp(min=0)


def on_grid(t: Tensor, r: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
    """Both levels of a pair rounded to the nearest of a descending ``grid``, and one apart where they would meet.

    Then t goes up a level, or r down one where t is the highest: FastGen's ``quantize``.
    """
    rising = grid.to(t).flip(0)
    above, below = (nearest_step(v, rising) for v in (t, r))
    meet, top = above == below, above == len(rising) - 1
    return rising[above + (meet & ~top)], rising[below - (meet & top).long()]


def ect_stage(progress: float, stages: int) -> int:
    """The stage at progress p when training is cut into equal stages, 0 .. stages - 1."""
    return min(int(progress * stages), stages - 1)
