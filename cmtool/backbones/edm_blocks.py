"""The blocks of EDM's networks: residual, with FIR resampling and attention, under the names of the published weights.

Source: Karras et al. 2022, arXiv 2206.00364, appendix F.7; Song et al. 2021, arXiv 2011.13456, appendix H.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cmtool.errors import UsageError

__all__ = ["Block", "BlockOptions", "Conv", "layer_name", "norm", "one_hot"]


class Conv(nn.Module):
    """A convolution of ``kernel`` 1 or 3, or with 0 none, that may bring images to half or twice their side.

    ``resize`` is "down", "up" or "". Sides change by a filter, the outer product of ``taps`` with itself, of sum 1
    (of sum 4 for "up", where zeros stand between the pixels), before the convolution or, if ``late``, after it.
    """

    resample_filter: Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        resize: str = "",
        taps: tuple[float, ...] = (1.0, 1.0),
        late: bool = False,
        zero: bool = False,
    ):
        super().__init__()
        self.resize, self.late, self.pad = resize, late, kernel // 2
        self.weight = nn.Parameter(torch.empty(outputs, inputs, kernel, kernel)) if kernel else None
        self.bias = nn.Parameter(torch.zeros(outputs)) if kernel else None
        if self.weight is not None:
            nn.init.zeros_(self.weight) if zero else nn.init.xavier_uniform_(self.weight)
        if resize:
            line = torch.tensor(taps, dtype=torch.float32)
            self.register_buffer("resample_filter", (torch.outer(line, line) / line.sum() ** 2)[None, None])

    def forward(self, x: Tensor) -> Tensor:
        border = (self.resample_filter.shape[-1] - 1) // 2 if self.resize else 0
        if self.late:
            return self._resample(self._convolve(x, self.pad + border), 0)
        return self._convolve(self._resample(x, border), self.pad)

    def _convolve(self, x: Tensor, pad: int) -> Tensor:
        return x if self.weight is None else F.conv2d(x, self.weight, self.bias, padding=pad)

    def _resample(self, x: Tensor, pad: int) -> Tensor:
        """Every channel by itself."""
        if not self.resize:
            return x
        n = x.shape[1]
        taps = self.resample_filter.to(x).expand(n, -1, -1, -1)
        if self.resize == "up":
            return F.conv_transpose2d(x, 4 * taps, stride=2, padding=pad, groups=n)
        return F.conv2d(x, taps, stride=2, padding=pad, groups=n)


@dataclass(frozen=True)
class BlockOptions:
    """What all blocks of a network have in common.

    The embedding [B, ``embedding``] scales and shifts the second norm if ``adaptive_scale``, and is else added before
    it. Where the side changes, the skip connection has a convolution if ``resample_proj``. The sum of the two paths is
    multiplied by ``skip_scale``. Attention has heads of ``num_head_channels``, or a single head if that is None.
    """

    embedding: int
    dropout: float
    adaptive_scale: bool
    resample_proj: bool
    skip_scale: float
    eps: float
    num_head_channels: int | None
    resample_filter: tuple[float, ...] = (1.0, 1.0)

    def num_heads(self, channels: int) -> int:
        """0, which is no attention, where not even one head fits."""
        return 1 if self.num_head_channels is None else channels // self.num_head_channels


class Block(nn.Module):
    """Two convolutions and a skip connection, at one side or to the next, and attention where asked."""

    def __init__(self, inputs: int, outputs: int, options: BlockOptions, resize: str = "", attention: bool = False):
        super().__init__()
        self.options, self.num_heads = options, options.num_heads(outputs) if attention else 0
        self.norm0 = norm(inputs, options.eps)
        self.conv0 = Conv(inputs, outputs, 3, resize, options.resample_filter)
        self.affine = nn.Linear(options.embedding, outputs * (2 if options.adaptive_scale else 1))
        self.norm1 = norm(outputs, options.eps)
        self.conv1 = Conv(outputs, outputs, 3, zero=True)
        convolves = inputs != outputs or (bool(resize) and options.resample_proj)
        identity = not (convolves or resize)
        self.skip = (
            nn.Identity() if identity else Conv(inputs, outputs, 1 if convolves else 0, resize, options.resample_filter)
        )
        if self.num_heads:
            self.norm2 = norm(outputs, options.eps)
            self.qkv = Conv(outputs, 3 * outputs, 1)
            self.proj = Conv(outputs, outputs, 1, zero=True)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.conv0(F.silu(self.norm0(x)))
        conditioning = self.affine(embedding)[:, :, None, None]
        if self.options.adaptive_scale:
            scale, shift = conditioning.chunk(2, 1)
            h = self.norm1(h) * (1 + scale) + shift
        else:
            h = self.norm1(h + conditioning)
        h = self.conv1(F.dropout(F.silu(h), self.options.dropout, self.training))
        x = (self.skip(x) + h) * self.options.skip_scale
        return (x + self._attend(x)) * self.options.skip_scale if self.num_heads else x

    def _attend(self, x: Tensor) -> Tensor:
        """Attention, written out, since the fused kernels have no forward-mode derivative."""
        parts = self.qkv(self.norm2(x)).flatten(2).unflatten(1, (self.num_heads, -1, 3))  # [B, heads, d, 3, N]
        q, k, v = parts.unbind(3)
        weights = torch.softmax(q.transpose(-1, -2) @ k / math.sqrt(q.shape[-2]), -1)
        return self.proj((v @ weights.transpose(-1, -2)).flatten(1, 2).view_as(x))


def norm(channels: int, eps: float) -> nn.GroupNorm:
    """32 groups, or fewer, of at least 4 channels each; UsageError when they cannot be of one size."""
    groups = max(min(32, channels // 4), 1)
    if channels % groups:
        raise UsageError(
            f"{channels} channels cannot be shared by {groups} groups",
            "take a backbone.model_channels that is a multiple of 32",
        )
    return nn.GroupNorm(groups, channels, eps)


def one_hot(labels: Tensor | None, c_noise: Tensor, classes: int) -> Tensor:
    """[B, classes] in the precision of the weights; a row of zeros is "no class"."""
    labels = torch.full_like(c_noise, -1) if labels is None else labels
    return (labels[:, None] == torch.arange(classes, device=labels.device)).to(c_noise)


def layer_name(side: int, what: str) -> str:
    return f"{side}x{side}_{what}"
