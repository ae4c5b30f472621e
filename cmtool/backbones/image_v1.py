"""The U-Net of k-diffusion, which its configurations call ``image_v1``.

The names of the weights are those of its files. Noise level and augment labels go through a small mapping network,
whose output scales and shifts every norm.
Source: k-diffusion (K. Crowson, 2022), for the scalings of Karras et al. 2022, arXiv 2206.00364; augment labels as
ibid., appendix F.2.
"""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cmtool.backbones.image_v1_blocks import GROUP, HEAD, Attention, Block, Resize, zero
from cmtool.backbones.shared_options import AttnResolutions, AugmentDim, Dropout, LearnVariance, PatchSize, TargetDim
from cmtool.errors import Hint, Setting, UsageError
from cmtool.options.plugin_option import Option
from cmtool.options.types import at_least

__all__ = ["ImageV1", "image_v1"]


class Fourier(nn.Module):
    """``(cos 2 pi f c, sin 2 pi f c)`` with frequencies ``f ~ N(0, 1)`` that are not learnt, [B] -> [B, dim]."""

    weight: Tensor

    def __init__(self, dim: int):
        super().__init__()
        self.register_buffer("weight", torch.randn(dim // 2, 1))

    def forward(self, c: Tensor) -> Tensor:
        angles = (2 * math.pi * c)[:, None] * self.weight[:, 0].to(c)
        return torch.cat([angles.cos(), angles.sin()], 1)


@dataclass(frozen=True)
class ImageV1Config:
    """At each level there are ``depths`` blocks of ``widths`` channels; ``attention`` says whether with attention."""

    channels: int
    classes: int
    mapping_dim: int
    widths: tuple[int, ...]
    depths: tuple[int, ...]
    attention: tuple[bool, ...]
    patch_size: int
    dropout: float
    augment_dim: int
    target_dim: int
    learn_variance: bool

    def stack(self, level: int, inputs: int, outputs: int) -> list[nn.Module]:
        """The blocks of a level, each with attention where the level has it."""
        inner, parts = self.widths[level], []
        for i in range(self.depths[level]):
            after = outputs if i == self.depths[level] - 1 else inner
            parts.append(Block(inner if i else inputs, inner, after, self.mapping_dim, self.dropout))
            if self.attention[level]:
                parts.append(Attention(after, self.mapping_dim, self.dropout))
        return parts

    def down(self, level: int) -> "Parts":
        resize = Resize(up=False) if level else nn.Identity()
        return Parts([resize, *self.stack(level, self.widths[max(level - 1, 0)], self.widths[level])])

    def up(self, level: int) -> "Parts":
        lowest, resize = level == len(self.widths) - 1, Resize(up=True) if level else nn.Identity()
        inputs, outputs = self.widths[level] * (1 if lowest else 2), self.widths[max(level - 1, 0)]
        return Parts([*self.stack(level, inputs, outputs), resize])


class Parts(nn.ModuleList):
    """The modules of one level, in their order."""

    def forward(self, h: Tensor, conditioning: Tensor) -> Tensor:
        for part in self:
            h = part(h, conditioning) if not isinstance(part, nn.Identity) else h
        return h


class ImageV1(nn.Module):
    """``net(x [B, C, H, W], c_noise [B], labels [B], augment_labels [B, A], target [B, T]) -> [B, C, H, W]``.

    The published networks know no classes; ``label`` is of those that cmtool trains.
    """

    def __init__(self, config: ImageV1Config):
        super().__init__()
        self.config = config
        pixels, dim, levels = config.channels * config.patch_size**2, config.mapping_dim, range(len(config.widths))
        self.timestep_embed = Fourier(dim)
        self.mapping_cond = zero(nn.Linear(config.augment_dim, dim, bias=False)) if config.augment_dim else None
        self.map_target = zero(nn.Linear(config.target_dim, dim, bias=False)) if config.target_dim else None
        self.label = nn.Embedding(config.classes, dim) if config.classes else None
        self.mapping = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, dim), nn.GELU())
        self.proj_in = nn.Conv2d(pixels, config.widths[0], 1)
        self.proj_out = zero(nn.Conv2d(config.widths[0], pixels + config.learn_variance, 1))
        down = nn.ModuleList([config.down(i) for i in levels])
        up = nn.ModuleList([config.up(i) for i in reversed(levels)])
        self.u_net = nn.ModuleDict({"d_blocks": down, "u_blocks": up})

    def forward(
        self,
        x: Tensor,
        c_noise: Tensor,
        labels: Tensor | None = None,
        augment_labels: Tensor | None = None,
        target: Tensor | None = None,
    ) -> Tensor:
        out = self.outputs(x, c_noise, labels, augment_labels, target)[:, : x.shape[1] * self.config.patch_size**2]
        return F.pixel_shuffle(out, self.config.patch_size)

    def outputs(
        self,
        x: Tensor,
        c_noise: Tensor,
        labels: Tensor | None = None,
        augment_labels: Tensor | None = None,
        target: Tensor | None = None,
    ) -> Tensor:
        """Patches as they leave the network; with ``learn_variance`` the last channel is of the variance."""
        conditioning = self.embed(c_noise, labels, augment_labels, target)
        h, skips = self.proj_in(F.pixel_unshuffle(x, self.config.patch_size)), []
        for parts in self.u_net["d_blocks"].children():
            h = parts(h, conditioning)
            skips.append(h)
        h = skips.pop()
        for i, parts in enumerate(self.u_net["u_blocks"].children()):
            h = parts(torch.cat([h, skips.pop()], 1) if i else h, conditioning)
        return self.proj_out(h)

    def embed(
        self,
        c_noise: Tensor,
        labels: Tensor | None,
        augment_labels: Tensor | None = None,
        target: Tensor | None = None,
    ) -> Tensor:
        """Noise level, class and the other conditions, [B, mapping_dim]; what is None adds nothing."""
        embedding = self.timestep_embed(c_noise)
        if self.mapping_cond is not None and augment_labels is not None:
            embedding = embedding + self.mapping_cond(augment_labels)
        if self.map_target is not None and target is not None:
            embedding = embedding + self.map_target(target)
        if self.label is not None and labels is not None:
            embedding = embedding + self.label(labels.clamp(min=0)) * (labels >= 0)[:, None]
        return self.mapping(embedding)


def image_v1(
    shape: tuple[int, ...],
    classes: int,
    *,
    mapping_dim: Annotated[int, Option("features of the mapping network, an even number", at_least(2, 1 << 20))] = 256,
    widths: Annotated[
        tuple[int, ...], Option("channels at each resolution, the finest first", at_least(1, 1 << 20))
    ] = (
        64,
        128,
    ),
    depths: Annotated[
        tuple[int, ...] | None,
        Option("blocks at each resolution, of the encoder and of the decoder", at_least(1, 1000)),
    ] = None,
    attn_resolutions: AttnResolutions = None,
    patch_size: PatchSize = 1,
    dropout: Dropout = 0.0,
    augment_dim: AugmentDim = 0,
    target_dim: TargetDim = 0,
    learn_variance: LearnVariance = False,
) -> ImageV1:
    """k-diffusion's U-Net, for images whose sides are multiples of ``patch_size 2^(levels - 1)``.

    Paper: the code of k-diffusion (K. Crowson, 2022); scalings of Karras et al. 2022, arXiv 2206.00364.
    Use: to read and to continue networks of k-diffusion, and for images that are no squares.

    What is left out is: ``depths`` 2, and attention at all resolutions but the finest. Of images that are no squares
    ``attn_resolutions`` holds the shorter sides.
    """
    check_images(shape, len(widths), patch_size)
    widths, depths = tuple(widths), tuple(depths or [2] * len(widths))
    if len(depths) != len(widths):
        raise UsageError(f"image_v1 needs a depth for each of {len(widths)} levels", "set backbone.depths=[2,2]")
    side, levels = min(shape[1:]) // patch_size, range(len(widths))
    attention = tuple(i > 0 if attn_resolutions is None else side >> i in attn_resolutions for i in levels)
    check(mapping_dim, widths, attention)
    stack = mapping_dim, widths, depths, attention, patch_size
    return ImageV1(ImageV1Config(shape[0], classes, *stack, dropout, augment_dim, target_dim, learn_variance))


def check_images(shape: tuple[int, ...], levels: int, patch_size: int) -> None:
    """UsageError for images that cannot be halved so often."""
    if len(shape) != 3:
        raise UsageError(
            f"image_v1 needs images, and these are {'x'.join(map(str, shape))}",
            Hint("try {}", Setting("backbone", "mlp")),
        )
    multiple = patch_size * 2 ** (levels - 1)
    if any(side % multiple or side < 2 * multiple for side in shape[1:]):
        raise UsageError(
            f"image_v1 with {levels} levels and patches of {patch_size} needs sides that are a multiple of {multiple},"
            f" twice it at least, and {shape[1]}x{shape[2]} is not",
            "set fewer levels: backbone.widths=[64]",
        )


def check(mapping_dim: int, widths: tuple[int, ...], attention: tuple[bool, ...]) -> None:
    """UsageError for numbers of channels that no such network can have."""
    if mapping_dim % 2:
        raise UsageError(
            f"image_v1 needs an even number of mapping features, and not {mapping_dim}", "set backbone.mapping_dim=256"
        )
    for level, channels in enumerate(widths):
        inputs = {channels, 2 * channels} if level < len(widths) - 1 else {channels}
        if any(n % max(1, n // GROUP) for n in inputs):
            raise UsageError(
                f"image_v1 cannot cut {channels} channels into groups of {GROUP}", "take multiples of 32: [64,128]"
            )
        attends = any(attention[level : level + 2])  # the last block of the coarser level in the decoder has these, too
        if attends and channels % max(1, channels // HEAD):
            raise UsageError(f"image_v1 cannot cut {channels} channels into heads of {HEAD}", "take multiples of 64")
