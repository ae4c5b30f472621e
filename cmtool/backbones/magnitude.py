"""Layers that keep numbers at mean square 1: what comes in so goes out so, at the start of training and at its end.

Source: Karras et al. 2024, arXiv 2312.02696, section 2 and appendix B.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Conv", "Fourier", "blend", "join", "resize", "silu", "unit"]


def unit(x: Tensor, dim: int | tuple[int, ...]) -> Tensor:
    """``x / (r + 1e-4)``, with ``r`` the root of the mean square over ``dim``."""
    length = torch.linalg.vector_norm(x, dim=dim, keepdim=True)
    return x / (length * math.sqrt(length.numel() / x.numel()) + 1e-4)


def silu(x: Tensor) -> Tensor:
    """``silu(x) / 0.596``, the root mean square of silu on normal numbers (ibid., eq. 81)."""
    return F.silu(x) / 0.596


def blend(a: Tensor, b: Tensor, t: float) -> Tensor:
    """``((1 - t) a + t b) / sqrt((1 - t)^2 + t^2)`` (ibid., eq. 88)."""
    return ((1 - t) * a + t * b) / math.hypot(1 - t, t)  # lerp would not mix precisions


def join(a: Tensor, b: Tensor, t: float = 0.5) -> Tensor:
    """Channels beside each other, weighted by 1 - t and t however many they are (ibid., eq. 103)."""
    n, m = a.shape[1], b.shape[1]
    share = math.sqrt(n + m) / math.hypot(1 - t, t)
    return torch.cat([a * (share * (1 - t) / math.sqrt(n)), b * (share * t / math.sqrt(m))], 1)


def resize(x: Tensor, scale: float) -> Tensor:
    """Means of 2x2 pixels when downsampling, copies when upsampling."""
    if scale == 1:
        return x
    return F.avg_pool2d(x, 2) if scale < 1 else F.interpolate(x, scale_factor=2.0, mode="nearest")


class Fourier(nn.Module):
    """``sqrt(2) cos(f c + p)`` with frequencies ``f ~ 2 pi N(0, 1)`` and phases ``p ~ U(0, 2 pi)`` (ibid., eq. 75)."""

    freqs: Tensor
    phases: Tensor

    def __init__(self, n: int):
        super().__init__()
        self.register_buffer("freqs", 2 * math.pi * torch.randn(n))
        self.register_buffer("phases", 2 * math.pi * torch.rand(n))

    def forward(self, c: Tensor) -> Tensor:
        return math.sqrt(2) * (c[:, None] * self.freqs.to(c) + self.phases.to(c)).cos()


class Conv(nn.Module):
    """A convolution, or without ``kernel`` a linear map, by filters ``gain w / |w|``: only their directions are learnt.

    Training puts the stored filters themselves back to mean square 1 before each step, by ``project``; otherwise they
    would grow, and the step relative to them shrink, without anybody having asked for it (ibid., section 2.3).
    """

    def __init__(self, inputs: int, outputs: int, kernel: int = 0):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, *[kernel] * 2 if kernel else []))

    def _filters(self) -> Tensor:
        return unit(self.weight, tuple(range(1, self.weight.ndim)))

    def forward(self, x: Tensor, gain: Any = 1.0) -> Tensor:
        w = self._filters() * (gain / math.sqrt(self.weight[0].numel()))
        return F.linear(x, w) if w.ndim == 2 else F.conv2d(x, w, padding=w.shape[-1] // 2)

    @torch.no_grad()
    def project(self) -> None:
        self.weight.copy_(self._filters())
