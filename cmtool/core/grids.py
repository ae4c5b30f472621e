"""Which noise levels a walk visits, from the highest down; float64."""

import torch
from torch import Tensor

__all__ = ["karras", "log_uniform", "to_zero"]


def karras(n: int, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> Tensor:
    """``sigma_i = (sigma_max^(1/rho) + i/(n-1) (sigma_min^(1/rho) - sigma_max^(1/rho)))^rho``, [n], descending.

    One level alone is ``sigma_max``. Source: Karras et al. 2022, arXiv 2206.00364, eq. 5.
    """
    ramp = torch.arange(n, dtype=torch.float64) / max(n - 1, 1)
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    grid = (high + ramp * (low - high)) ** rho
    grid[0] = sigma_max  # the powers lose the last digit, and callers compare ends
    if n > 1:
        grid[-1] = sigma_min
    return grid


def log_uniform(n: int, sigma_min: float = 0.002, sigma_max: float = 80.0) -> Tensor:
    """``n`` levels equally spaced in ln sigma, descending."""
    ends = torch.tensor([sigma_max, sigma_min], dtype=torch.float64).log()
    return torch.linspace(float(ends[0]), float(ends[1]), n, dtype=torch.float64).exp()


def to_zero(levels: Tensor) -> Tensor:
    """The levels followed by 0, where the image itself is."""
    return torch.cat([levels, levels.new_zeros(1)])
