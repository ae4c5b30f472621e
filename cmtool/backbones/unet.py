"""A small convolutional U-Net: the default backbone.

The image is cut into patches first, so that the convolutions run on a quarter of the positions; residual blocks take
the noise level and the class as a scale and a shift of their second normalisation.
Source: Dhariwal and Nichol 2021, arXiv 2105.05233.
"""

import math
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cmtool.errors import Hint, Setting, UsageError

__all__ = ["UNet", "unet"]

M = TypeVar("M", bound=nn.Module)


class Embedding(nn.Module):
    """The noise level as sines of low frequency, plus the class; high frequencies make consistency training unstable.

    ``augment_labels`` say how a training image was augmented, ``target`` where a step of a flow map leads;
    none are as good as zeros, and at first neither changes anything. ``conditions`` are how many numbers each has.
    Source: Lu and Song 2024, arXiv 2410.11081, section 4.1.
    """

    frequencies: Tensor

    def __init__(self, classes: int, width: int, conditions: tuple[int, int], frequencies: int = 16):
        super().__init__()
        augment_dim, target_dim = conditions
        self.classes = classes
        self.register_buffer("frequencies", torch.logspace(math.log10(0.5), math.log10(16), frequencies))
        self.time = nn.Sequential(nn.Linear(2 * frequencies, width), nn.SiLU(), nn.Linear(width, width))
        self.label = nn.Embedding(classes + 1, width) if classes else None  # the last row is "no class"
        self.map_augment = zero(nn.Linear(augment_dim, width, bias=False)) if augment_dim else None
        self.map_target = zero(nn.Linear(target_dim, width, bias=False)) if target_dim else None

    def forward(
        self, c_noise: Tensor, labels: Tensor | None, augment_labels: Tensor | None, target: Tensor | None
    ) -> Tensor:
        angles = c_noise[:, None] * self.frequencies.to(c_noise)
        embedding = self.time(torch.cat([angles.sin(), angles.cos()], 1))
        if self.label is not None:
            none = torch.full_like(c_noise, self.classes, dtype=torch.long)
            embedding = embedding + self.label(none if labels is None else torch.where(labels < 0, none, labels))
        if self.map_augment is not None and augment_labels is not None:
            embedding = embedding + self.map_augment(augment_labels)
        if self.map_target is not None and target is not None:
            embedding = embedding + self.map_target(target)
        return F.silu(embedding)


class Block(nn.Module):
    """Two convolutions and a way around them, on the way down (scale 0.5), up (scale 2) or level (scale 1)."""

    def __init__(self, inputs: int, outputs: int, embedding: int, dropout: float, scale: float = 1.0):
        super().__init__()
        self.scale = scale
        self.norm1 = norm(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.modulate = nn.Linear(embedding, 2 * outputs)
        self.norm2 = norm(outputs)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = zero(nn.Conv2d(outputs, outputs, 3, padding=1))
        self.around = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.conv1(resize(F.silu(self.norm1(x)), self.scale))
        scale, shift = self.modulate(embedding)[:, :, None, None].chunk(2, 1)
        h = self.conv2(self.dropout(F.silu(self.norm2(h) * (1 + scale) + shift)))
        return (self.around(resize(x, self.scale)) + h) * math.sqrt(0.5)


class Attention(nn.Module):
    """Every position looks at every other one; written out, since the fused kernels have no forward-mode derivative."""

    def __init__(self, channels: int, head: int = 32):
        super().__init__()
        self.heads = max(channels // head, 1)
        self.norm = norm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = zero(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(x)).flatten(2).unflatten(1, (3, self.heads, -1)).unbind(1)  # [B, heads, d, N]
        weights = torch.softmax(q.transpose(-1, -2) @ k / math.sqrt(q.shape[-2]), -1)
        return (x + self.out((v @ weights.transpose(-1, -2)).flatten(1, 2).view_as(x))) * math.sqrt(0.5)


class UNet(nn.Module):
    """Down through the levels, up again, with a connection across at each block."""

    def __init__(
        self,
        channels: int,
        classes: int,
        width: int,
        mults: tuple[int, ...],
        blocks: int,
        attention: tuple[int, ...],
        patch: int,
        dropout: float,
        conditions: tuple[int, int],
    ):
        super().__init__()
        wide = 4 * width
        self.embedding = Embedding(classes, wide, conditions)
        self.enter = nn.Conv2d(channels * patch**2, width, 3, padding=1)
        self.cut, self.join = nn.PixelUnshuffle(patch), nn.PixelShuffle(patch)

        self.down, self.up, across, here = nn.ModuleList(), nn.ModuleList(), [], width
        for level, mult in enumerate(mults):
            for i in range(blocks):
                scale = 0.5 if level and i == 0 else 1.0
                self.down.append(stage(here, mult * width, wide, dropout, level in attention, scale))
                here = mult * width
                across.append(here)
        self.middle = stage(here, here, wide, dropout, len(mults) - 1 in attention)
        for level, mult in reversed(list(enumerate(mults))):
            for _ in range(blocks):
                self.up.append(stage(here + across.pop(), mult * width, wide, dropout, level in attention))
                here = mult * width
            if level:
                self.up.append(stage(here, here, wide, dropout, False, 2.0))
        # Noise must be taken off pixel by pixel; a straight way for it spares the blocks from carrying it through.
        self.straight = zero(nn.Linear(wide, 1))
        self.leave = nn.Sequential(norm(here), nn.SiLU(), zero(nn.Conv2d(here, channels * patch**2, 3, padding=1)))

    def forward(
        self,
        x: Tensor,
        c_noise: Tensor,
        labels: Tensor | None = None,
        augment_labels: Tensor | None = None,
        target: Tensor | None = None,
    ) -> Tensor:
        embedding = self.embedding(c_noise, labels, augment_labels, target)
        image = self.straight(embedding)[:, :, None, None] * x
        x = self.enter(self.cut(x))
        across = []
        for block, look in self.down:  # type: ignore[misc]
            x = look(block(x, embedding))
            across.append(x)
        block, look = self.middle  # type: ignore[misc]
        x = look(block(x, embedding))
        for block, look in self.up:  # type: ignore[misc]
            x = look(block(x if block.scale > 1 else torch.cat([x, across.pop()], 1), embedding))
        return image + self.join(self.leave(x))


def stage(inputs: int, outputs: int, embedding: int, dropout: float, attention: bool, scale: float = 1.0) -> nn.Module:
    """A block and, where asked for, attention after it."""
    look = Attention(outputs) if attention else nn.Identity()
    return nn.ModuleList([Block(inputs, outputs, embedding, dropout, scale), look])


def norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(max(channels // 16, 1) if channels % 16 == 0 else 1, channels)


def zero(module: M) -> M:
    """A layer that starts as nothing, so that a deep network starts as the identity."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def resize(x: Tensor, scale: float) -> Tensor:
    if scale == 1:
        return x
    return F.avg_pool2d(x, 2) if scale < 1 else F.interpolate(x, scale_factor=2.0, mode="nearest")


def unet(
    shape: tuple[int, ...],
    classes: int,
    *,
    model_channels: int = 64,
    channel_mult: tuple[int, ...] | None = None,
    num_blocks: int = 2,
    attention: tuple[int, ...] | None = None,
    patch: int | None = None,
    dropout: float = 0.0,
    augment_dim: int = 0,
    target_dim: int = 0,
) -> nn.Module:
    """A U-Net for square images ``shape`` = (C, H, W) whose side is a multiple of ``patch 2^(levels - 1)``.

    ``width`` channels at the first level, times ``mults`` at each; ``attention`` lists the levels that have it. What is
    left out follows from the size: patches of 2 from 32 pixels on, levels down to 4 positions, attention at 8 or fewer.
    ``augment_dim`` numbers may say how a training image was augmented, ``target_dim`` where a step of a flow map ends.
    """
    if len(shape) != 3 or shape[1] != shape[2]:
        raise UsageError(
            f"unet needs square images, and these are {'x'.join(map(str, shape))}",
            Hint("try {}", Setting("backbone", "mlp")),
        )
    channels, side, _ = shape
    patch = patch or (2 if side >= 32 and side % 8 == 0 else 1)
    grid = side // patch
    channel_mult = tuple(channel_mult or default_channel_mult(grid))
    multiple = patch * 2 ** (len(channel_mult) - 1)
    if side % multiple:
        raise UsageError(
            f"unet with {len(channel_mult)} levels and patches of {patch} needs a side that is a multiple of {multiple}"
            f", and {side} is not",
            f"resize the images to {max(side // multiple, 1) * multiple}, or set backbone.channel_mult=[1,2]",
        )
    if attention is None:
        attention = tuple(level for level in range(len(channel_mult)) if grid >> level <= 8)
    conditions = (augment_dim, target_dim)
    return UNet(
        channels, classes, model_channels, channel_mult, num_blocks, tuple(attention), patch, dropout, conditions
    )


def default_channel_mult(grid: int) -> tuple[int, ...]:
    """1, 2, 2, ...: a level for every halving that leaves at least 4 positions a side."""
    levels = 1
    while grid % 2 == 0 and grid // 2 >= 4 and levels < 5:
        grid, levels = grid // 2, levels + 1
    return (1, *[2] * (levels - 1))
