"""A small convolutional U-Net: the default backbone.

The image is cut into patches first, so that the convolutions run on a quarter of the positions. Residual blocks take
the noise level and the class as a scale and a shift of their second normalisation.
Source: Dhariwal and Nichol 2021, arXiv 2105.05233.

Modules keep the names that their weights have in checkpoints.
"""

import math
from dataclasses import dataclass
from typing import Annotated, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cmtool.backbones.shared_options import (
    AttnResolutions,
    AugmentDim,
    ChannelMult,
    Dropout,
    ModelChannels,
    NumBlocks,
    TargetDim,
    default_channel_mult,
    resolutions,
    shorter_side,
)
from cmtool.options.plugin_option import Option
from cmtool.options.types import at_least

__all__ = ["UNet", "unet"]

M = TypeVar("M", bound=nn.Module)


class Embedding(nn.Module):
    """The noise level as sines of low frequency, plus the class; high frequencies make consistency training unstable.

    Augment labels and the target of a flow map's step enter by layers that start as zeros; None is as good as zeros.
    Source: Lu and Song 2024, arXiv 2410.11081, section 4.1.
    """

    frequencies: Tensor

    def __init__(self, classes: int, channels: int, augment_dim: int, target_dim: int, frequencies: int = 16):
        super().__init__()
        self.classes = classes
        self.register_buffer("frequencies", torch.logspace(math.log10(0.5), math.log10(16), frequencies))
        self.time = nn.Sequential(nn.Linear(2 * frequencies, channels), nn.SiLU(), nn.Linear(channels, channels))
        self.label = nn.Embedding(classes + 1, channels) if classes else None  # the last row is "no class"
        self.map_augment = zero(nn.Linear(augment_dim, channels, bias=False)) if augment_dim else None
        self.map_target = zero(nn.Linear(target_dim, channels, bias=False)) if target_dim else None

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
    """Two convolutions and a skip connection, that halve the side (scale 0.5), double it (2) or keep it (1)."""

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
    """Self-attention of all positions; written out, since the fused kernels have no forward-mode derivative."""

    def __init__(self, channels: int, head_channels: int = 32):
        super().__init__()
        self.num_heads = max(channels // head_channels, 1)
        self.norm = norm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = zero(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(x)).flatten(2).unflatten(1, (3, self.num_heads, -1)).unbind(1)  # [B, heads, d, N]
        weights = torch.softmax(q.transpose(-1, -2) @ k / math.sqrt(q.shape[-2]), -1)
        return (x + self.out((v @ weights.transpose(-1, -2)).flatten(1, 2).view_as(x))) * math.sqrt(0.5)


class Stage(nn.ModuleList):
    """A block and, where asked for, attention after it."""

    def __init__(self, block: Block, attention: nn.Module):
        super().__init__([block, attention])
        self.scale = block.scale

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        block, attention = self
        return attention(block(x, embedding))


@dataclass(frozen=True)
class UNetConfig:
    """The size of a network; ``attention`` says for each resolution whether it has attention."""

    channels: int
    classes: int
    model_channels: int
    channel_mult: tuple[int, ...]
    num_blocks: int
    attention: tuple[bool, ...]
    patch_size: int
    dropout: float
    augment_dim: int
    target_dim: int

    def stage(self, inputs: int, outputs: int, attention: bool, scale: float = 1.0) -> Stage:
        # Attention first: the order in which layers draw their weights belongs to the seed of a run.
        layer = Attention(outputs) if attention else nn.Identity()
        return Stage(Block(inputs, outputs, 4 * self.model_channels, self.dropout, scale), layer)


class UNet(nn.Module):
    """``net(x [B, C, H, W], c_noise [B], labels [B], augment_labels [B, A], target [B, T]) -> [B, C, H, W]``."""

    def __init__(self, config: UNetConfig):
        super().__init__()
        embedding, pixels = 4 * config.model_channels, config.channels * config.patch_size**2
        self.embedding = Embedding(config.classes, embedding, config.augment_dim, config.target_dim)
        self.enter = nn.Conv2d(pixels, config.model_channels, 3, padding=1)
        self.to_patches, self.from_patches = nn.PixelUnshuffle(config.patch_size), nn.PixelShuffle(config.patch_size)

        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        skips, channels = [], config.model_channels
        for level, mult in enumerate(config.channel_mult):
            for i in range(config.num_blocks):
                outputs, scale = mult * config.model_channels, 0.5 if level and i == 0 else 1.0
                self.down.append(config.stage(channels, outputs, config.attention[level], scale))
                channels = outputs
                skips.append(channels)
        self.middle = config.stage(channels, channels, config.attention[-1])
        for level, mult in reversed(list(enumerate(config.channel_mult))):
            for _ in range(config.num_blocks):
                outputs = mult * config.model_channels
                self.up.append(config.stage(channels + skips.pop(), outputs, config.attention[level]))
                channels = outputs
            if level:
                self.up.append(config.stage(channels, channels, False, 2.0))
        # Noise must be taken off pixel by pixel; a direct path for it spares the blocks from carrying it through.
        self.straight = zero(nn.Linear(embedding, 1))
        self.leave = nn.Sequential(norm(channels), nn.SiLU(), zero(nn.Conv2d(channels, pixels, 3, padding=1)))

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
        x = self.enter(self.to_patches(x))
        skips: list[Tensor] = []
        for stage in self.down:
            x = stage(x, embedding)
            skips.append(x)
        x = self.middle(x, embedding)
        for stage in self.up:
            x = stage(x if stage.scale == 2 else torch.cat([x, skips.pop()], 1), embedding)
        return image + self.from_patches(self.leave(x))


def norm(channels: int) -> nn.GroupNorm:
    """Groups of 16 channels, or one group where that is no divisor."""
    return nn.GroupNorm(max(channels // 16, 1) if channels % 16 == 0 else 1, channels)


def zero(module: M) -> M:
    """The layer with all parameters 0, so that a deep network starts as the identity."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def resize(x: Tensor, scale: float) -> Tensor:
    """Means of 2x2 pixels at scale 0.5, repetition at 2."""
    if scale == 1:
        return x
    return F.avg_pool2d(x, 2) if scale < 1 else F.interpolate(x, scale_factor=2.0, mode="nearest")


def unet(
    shape: tuple[int, ...],
    classes: int,
    *,
    model_channels: ModelChannels = 64,
    channel_mult: ChannelMult = None,
    num_blocks: NumBlocks = 2,
    attn_resolutions: AttnResolutions = None,
    patch_size: Annotated[
        int | None,
        Option("side of the patches that an image is cut into, in pixels; 2 from 32 pixels on", at_least(1, 1 << 14)),
    ] = None,
    dropout: Dropout = 0.0,
    augment_dim: AugmentDim = 0,
    target_dim: TargetDim = 0,
) -> UNet:
    """A small U-Net for images whose sides are multiples of ``patch_size 2^(levels - 1)``.

    Paper: Dhariwal and Nichol 2021, arXiv 2105.05233, of which it is a smaller variant.
    Use: to train on a CPU or on a small GPU; the default for images.

    What is left out follows from the size: patches of 2 from 32 pixels on, resolutions (``channel_mult`` 1, 2, 2, ...)
    down to 4 positions a side, and attention where there are 8 positions a side or fewer.
    """
    side = shorter_side(shape)
    patch_size = patch_size or (2 if side >= 32 and all(n % 8 == 0 for n in shape[1:]) else 1)
    channel_mult = tuple(channel_mult or default_channel_mult(*(n // patch_size for n in shape[1:])))
    sides = resolutions("unet", shape, len(channel_mult), patch_size)
    attention = tuple(n <= 8 if attn_resolutions is None else n in attn_resolutions for n in sides)
    stack = (model_channels, channel_mult, num_blocks, attention)
    return UNet(UNetConfig(shape[0], classes, *stack, patch_size, dropout, augment_dim, target_dim))
