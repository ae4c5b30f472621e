"""The blocks of EDM's networks: residual, with FIR resampling and attention, under the names of the published weights.

Source: Karras et al. 2022, arXiv 2206.00364, appendix F.7; Song et al. 2021, arXiv 2011.13456, appendix H.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cmtool.errors import Hint, Setting, UsageError

__all__ = ["Block", "BlockOptions", "Conv", "layer_name", "norm", "one_hot", "resolutions"]


class Conv(nn.Module):
    """A convolution of ``kernel`` 1 or 3, or with 0 none, that may bring images to half or twice their side.

    ``resize`` is "down", "up" or "". Sides change by a filter, the outer product of ``taps`` with itself, of sum 1
    (of sum 4 on the way up, where zeros stand between the pixels), before the convolution or, if ``late``, after it.
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
        around = (self.resample_filter.shape[-1] - 1) // 2 if self.resize else 0
        if self.late:
            return self._resized(self._convolved(x, self.pad + around), 0)
        return self._convolved(self._resized(x, around), self.pad)

    def _convolved(self, x: Tensor, pad: int) -> Tensor:
        return x if self.weight is None else F.conv2d(x, self.weight, self.bias, padding=pad)

    def _resized(self, x: Tensor, pad: int) -> Tensor:
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

    The ``embedding`` [B, embedding] scales and shifts the second norm if ``modulates``, and is else added before it.
    Where the side changes, the way around has a convolution of its own if ``projects``. Sums of two ways are multiplied
    by ``scale``. Attention has heads of ``head`` channels, or a single one if that is None.
    """

    embedding: int
    dropout: float
    modulates: bool
    projects: bool
    scale: float
    eps: float
    head: int | None
    taps: tuple[float, ...] = (1.0, 1.0)

    def heads(self, channels: int) -> int:
        """0, which is no attention, where not even one head fits."""
        return 1 if self.head is None else channels // self.head


class Block(nn.Module):
    """Two convolutions and a way around them, at one side or to the next, and attention where asked."""

    def __init__(self, inputs: int, outputs: int, style: BlockOptions, resize: str = "", attention: bool = False):
        super().__init__()
        self.style, self.inputs, self.heads = style, inputs, style.heads(outputs) if attention else 0
        self.norm0 = norm(inputs, style.eps)
        self.conv0 = Conv(inputs, outputs, 3, resize, style.taps)
        self.affine = nn.Linear(style.embedding, outputs * (2 if style.modulates else 1))
        self.norm1 = norm(outputs, style.eps)
        self.conv1 = Conv(outputs, outputs, 3, zero=True)
        convolves = inputs != outputs or (bool(resize) and style.projects)
        straight = not (convolves or resize)
        self.skip = nn.Identity() if straight else Conv(inputs, outputs, 1 if convolves else 0, resize, style.taps)
        if self.heads:
            self.norm2 = norm(outputs, style.eps)
            self.qkv = Conv(outputs, 3 * outputs, 1)
            self.proj = Conv(outputs, outputs, 1, zero=True)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.conv0(F.silu(self.norm0(x)))
        told = self.affine(embedding)[:, :, None, None]
        if self.style.modulates:
            scale, shift = told.chunk(2, 1)
            h = self.norm1(h) * (1 + scale) + shift
        else:
            h = self.norm1(h + told)
        h = self.conv1(F.dropout(F.silu(h), self.style.dropout, self.training))
        x = (self.skip(x) + h) * self.style.scale
        return (x + self._looked(x)) * self.style.scale if self.heads else x

    def _looked(self, x: Tensor) -> Tensor:
        """Attention, written out, since the fused kernels have no forward-mode derivative."""
        parts = self.qkv(self.norm2(x)).flatten(2).unflatten(1, (self.heads, -1, 3))  # [B, heads, d, 3, N]
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


def resolutions(what: str, shape: tuple[int, ...], levels: int) -> tuple[int, ...]:
    """The side of the image at each level; UsageError when it cannot be halved so often, or is no square."""
    if len(shape) != 3 or shape[1] != shape[2]:
        raise UsageError(
            f"{what} needs square images, and these are {'x'.join(map(str, shape))}",
            Hint("try {}", Setting("backbone", "mlp")),
        )
    side, multiple = shape[1], 2 ** (levels - 1)
    if side % multiple:
        raise UsageError(
            f"{what} with {levels} levels needs a side that is a multiple of {multiple}, and {side} is not",
            f"resize the images to {max(side // multiple, 1) * multiple}, or set backbone.channel_mult=[1,2]",
        )
    return tuple(side >> level for level in range(levels))
