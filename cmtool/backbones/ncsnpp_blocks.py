"""The blocks of score_sde's networks: residual, resampling and attention, under the names of the published weights.

Source: Song et al. 2021, arXiv 2011.13456, appendix H; of those of DDPM Ho et al. 2020, arXiv 2006.11239, appendix B.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cmtool.errors import UsageError

__all__ = [
    "NONLINEARITIES",
    "Attention",
    "Block",
    "BlockOptions",
    "Combine",
    "Filtered",
    "Fourier",
    "Resize",
    "Strided",
    "Up",
    "conv",
    "linear",
    "resample",
    "zero",
]

M = TypeVar("M", bound=nn.Module)
NONLINEARITIES: dict[str, Callable[[Tensor], Tensor]] = {
    "swish": F.silu,
    "relu": F.relu,
    "lrelu": partial(F.leaky_relu, negative_slope=0.2),
    "elu": F.elu,
}
MEAN = (1.0, 1.0)  # taps with which a side is halved by means of 2x2 pixels, and doubled by repetition


@dataclass(frozen=True)
class BlockOptions:
    """What all blocks of a network have in common.

    ``embedding`` is the length of the embedding of the noise level. Sums with a skip connection are divided by sqrt 2
    if ``skip_rescale``. Norms have 32 groups, or fewer of ``min_group`` channels each. Sides change by a filter, the
    outer product of ``taps`` with itself. A ``ddpm`` block keeps its side, and the names of its weights differ a
    little; sides then change by convolutions, or without ``conv_resample`` by means and repetition alone.
    """

    embedding: int
    dropout: float
    skip_rescale: bool
    min_group: int
    taps: tuple[float, ...]
    ddpm: bool = False
    nonlinearity: str = "swish"
    conv_resample: bool = True

    def act(self, x: Tensor) -> Tensor:
        return NONLINEARITIES[self.nonlinearity](x)

    def norm(self, channels: int) -> nn.GroupNorm:
        """UsageError when the groups cannot be of one size."""
        groups = max(min(32, channels // self.min_group), 1)
        if channels % groups:
            raise UsageError(
                f"{channels} channels cannot be shared by {groups} groups",
                "take a backbone.model_channels that is a multiple of 32",
            )
        return nn.GroupNorm(groups, channels, 1e-6)

    def add_skip(self, x: Tensor, h: Tensor) -> Tensor:
        return (x + h) / math.sqrt(2) if self.skip_rescale else x + h


def resample(x: Tensor, resize: str, taps: tuple[float, ...]) -> Tensor:
    """Half the side by a filter of sum 1, or twice by one of sum 4 over pixels with zeros between, each channel alone.

    ``resize`` is "down", "up" or "", which leaves it; pixels outside the image are zero.
    """
    if not resize:
        return x
    channels, pad = x.shape[1], len(taps) // 2 - 1
    if resize == "up":
        return F.conv_transpose2d(x, 4 * kernel(x, taps), stride=2, padding=pad, groups=channels)
    return F.conv2d(x, kernel(x, taps), stride=2, padding=pad, groups=channels)


def kernel(x: Tensor, taps: tuple[float, ...]) -> Tensor:
    """The filter for each channel of ``x``, [C, 1, n, n]."""
    line = torch.tensor(taps, dtype=torch.float32, device=x.device)
    return (torch.outer(line, line) / line.sum() ** 2).to(x.dtype).expand(x.shape[1], 1, -1, -1)


class Block(nn.Module):
    """Two convolutions, the embedding added between them, and a skip connection; at one side or to the next."""

    def __init__(self, inputs: int, outputs: int, options: BlockOptions, resize: str = ""):
        super().__init__()
        self.options, self.resize = options, resize
        self.GroupNorm_0 = options.norm(inputs)
        self.Conv_0 = conv(inputs, outputs)
        self.Dense_0 = linear(options.embedding, outputs)
        self.GroupNorm_1 = options.norm(outputs)
        self.Conv_1 = zero(conv(outputs, outputs))
        # The published weights call the skip connection by one of two names.
        self.NIN_0 = self.Conv_2 = None
        if inputs != outputs or resize:
            if options.ddpm:
                self.NIN_0 = NIN(inputs, outputs)
            else:
                self.Conv_2 = conv(inputs, outputs, 1)

    def forward(self, x: Tensor, embedding: Tensor | None) -> Tensor:
        """``x`` [B, C, H, W]; ``embedding`` [B, E] comes activated, or is None in a network without it."""
        h = self.Conv_0(resample(self.options.act(self.GroupNorm_0(x)), self.resize, self.options.taps))
        if embedding is not None:
            h = h + self.Dense_0(embedding)[:, :, None, None]
        h = F.dropout(self.options.act(self.GroupNorm_1(h)), self.options.dropout, self.training)
        x = resample(x, self.resize, self.options.taps)
        skip = self.NIN_0 or self.Conv_2
        return self.options.add_skip(skip(x) if skip else x, self.Conv_1(h))


class NIN(nn.Module):
    """A linear map of the channels of each position, whose weight is stored as [in, out]."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.W = nn.Parameter(torch.empty(inputs, outputs))
        self.b = nn.Parameter(torch.zeros(outputs))
        nn.init.xavier_uniform_(self.W, gain=math.sqrt(0.1))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.W.t()[:, :, None, None], self.b)


class Attention(nn.Module):
    """Self-attention with one head; written out, since the fused kernels have no forward-mode derivative."""

    def __init__(self, channels: int, options: BlockOptions):
        super().__init__()
        self.options = options
        self.GroupNorm_0 = options.norm(channels)
        self.NIN_0, self.NIN_1, self.NIN_2 = (NIN(channels, channels) for _ in range(3))
        self.NIN_3 = zero(NIN(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        h = self.GroupNorm_0(x)
        q, k, v = (part(h).flatten(2) for part in (self.NIN_0, self.NIN_1, self.NIN_2))  # [B, C, N]
        weights = torch.softmax(q.transpose(1, 2) @ k / math.sqrt(x.shape[1]), -1)
        return self.options.add_skip(x, self.NIN_3((v @ weights.transpose(1, 2)).view_as(x)))


class Resize(nn.Module):
    """Without weights: half the side, or twice."""

    def __init__(self, resize: str, taps: tuple[float, ...]):
        super().__init__()
        self.resize, self.taps = resize, taps

    def forward(self, x: Tensor) -> Tensor:
        return resample(x, self.resize, self.taps)


class Filtered(nn.Module):
    """Half the side by the filter and a convolution of every second position."""

    def __init__(self, inputs: int, outputs: int, taps: tuple[float, ...]):
        super().__init__()
        self.taps = taps
        self.Conv2d_0 = conv(inputs, outputs, pad=0, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        filtered = F.conv2d(x, kernel(x, self.taps), padding=len(self.taps) // 2, groups=x.shape[1])
        return self.Conv2d_0(filtered)


class Strided(nn.Module):
    """Half the side by a convolution of every second position, with zeros below and to the right."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.Conv_0 = conv(inputs, outputs, pad=0, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.Conv_0(F.pad(x, (0, 1, 0, 1)))


class Up(nn.Module):
    """Twice the side by repetition and a convolution."""

    def __init__(self, channels: int):
        super().__init__()
        self.Conv_0 = conv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.Conv_0(resample(x, "up", MEAN))


class Combine(nn.Module):
    """The image at a lower resolution joins the features: added to them or, if ``cat``, as further channels."""

    def __init__(self, image: int, channels: int, cat: bool):
        super().__init__()
        self.cat = cat
        self.Conv_0 = conv(image, channels, 1)

    def forward(self, image: Tensor, h: Tensor) -> Tensor:
        return torch.cat([self.Conv_0(image), h], 1) if self.cat else self.Conv_0(image) + h


class Fourier(nn.Module):
    """``(sin 2 pi W c, cos 2 pi W c)`` with ``W ~ scale N(0, 1)`` that is not learnt, [B] -> [B, 2 n]."""

    W: Tensor

    def __init__(self, n: int, scale: float):
        super().__init__()
        self.register_buffer("W", scale * torch.randn(n))

    def forward(self, c: Tensor) -> Tensor:
        angle = c[:, None] * self.W.to(c) * (2 * math.pi)
        return torch.cat([angle.sin(), angle.cos()], 1)


def conv(inputs: int, outputs: int, size: int = 3, pad: int | None = None, stride: int = 1) -> nn.Conv2d:
    """A convolution with the padding that keeps the side, unless ``pad`` is given."""
    return default_init(nn.Conv2d(inputs, outputs, size, stride, size // 2 if pad is None else pad))


def linear(inputs: int, outputs: int) -> nn.Linear:
    return default_init(nn.Linear(inputs, outputs))


def default_init(layer: M) -> M:
    nn.init.xavier_uniform_(layer.get_parameter("weight"))
    nn.init.zeros_(layer.get_parameter("bias"))
    return layer


def zero(layer: M) -> M:
    """The layer with all parameters 0."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
