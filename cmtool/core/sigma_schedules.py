"""Sigma schedules: the noise levels of a sampler, descending; float64."""

import math

import torch
from torch import Tensor

from cmtool.core.process import Process

__all__ = [
    "append_zero",
    "evenly_spaced_steps",
    "karras",
    "karras_between",
    "linear",
    "log_uniform",
    "multistep_schedule",
    "uniform_in_time",
]


def karras(n: int, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> Tensor:
    """``sigma_i = (sigma_max^(1/rho) + i/(n-1) (sigma_min^(1/rho) - sigma_max^(1/rho)))^rho``, [n], descending.

    With n = 1 it is ``sigma_max``. Source: Karras et al. 2022, arXiv 2206.00364, eq. 5.
    """
    ramp = torch.arange(n, dtype=torch.float64) / max(n - 1, 1)
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    grid = (high + ramp * (low - high)) ** rho
    grid[0] = sigma_max  # the powers lose the last digit, and callers compare ends
    if n > 1:
        grid[-1] = sigma_min
    return grid


def karras_between(t: Tensor, s: Tensor, n: int, rho: float = 7.0) -> Tensor:
    """From noise levels t [...] to s [...] in ``n`` steps even in ``sigma^(1/rho)``, both ends exact: [n + 1, ...]."""
    high, low = t ** (1 / rho), s ** (1 / rho)
    inner = [(high + i / n * (low - high)) ** rho for i in range(1, n)]
    return torch.stack([t, *inner, s])


def log_uniform(n: int, sigma_min: float = 0.002, sigma_max: float = 80.0) -> Tensor:
    """``n`` noise levels equally spaced in ln sigma, descending."""
    ends = torch.tensor([sigma_max, sigma_min], dtype=torch.float64).log()
    return torch.linspace(float(ends[0]), float(ends[1]), n, dtype=torch.float64).exp()


def linear(n: int, sigma_min: float = 0.002, sigma_max: float = 80.0) -> Tensor:
    """``n`` noise levels equally spaced in sigma, descending."""
    return torch.linspace(sigma_max, sigma_min, n, dtype=torch.float64)


def uniform_in_time(process: Process, n: int, first: float = 1.0, last: float = 1e-3) -> Tensor:
    """The noise levels at ``n`` times of ``process``, even from ``first`` down to ``last`` (Song et al. 2021)."""
    return process.sigma(torch.linspace(first, last, n, dtype=torch.float64))


def evenly_spaced_steps(sigmas: Tensor, n: int, sigma_min: float = 0.0, sigma_max: float = math.inf) -> Tensor:
    """``n`` of the descending ``sigmas`` between the two noise levels, evenly counted, the ends among them."""
    known = sigmas[(sigmas >= sigma_min) & (sigmas <= sigma_max)]
    return known[torch.linspace(0, len(known) - 1, n, dtype=torch.float64).round().long()]


def append_zero(sigmas: Tensor) -> Tensor:
    """The noise levels followed by 0, that of the image itself."""
    return torch.cat([sigmas, sigmas.new_zeros(1)])


def multistep_schedule(steps: int, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> Tensor:
    """Noise levels for multistep consistency sampling: ``sigma_max`` and ``steps - 1`` below it.

    They lie at 0.4 + 0.4 k/steps of the Karras ramp, k = 1 .. steps - 1: for two steps at 0.6, amid what the published
    models use (0.56 to 0.65: Song et al. 2023; Geng et al. 2024).
    """
    ramp = 0.4 + 0.4 * torch.arange(1, steps, dtype=torch.float64) / steps
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return torch.cat([torch.tensor([sigma_max], dtype=torch.float64), (high + ramp * (low - high)) ** rho])
