"""The U-Net of k-diffusion, which its configurations call ``image_v1``.

The names of the weights are those of its files. Noise level and augmentation go through a small network of their own,
whose output scales and shifts every norm. Source: k-diffusion (K. Crowson, 2022), for the scalings of Karras et al.
2022, arXiv 2206.00364; augmentation as ibid., appendix F.2.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cmtool.backbones.image_v1_blocks import GROUP, HEAD, Attention, Block, Resize, zero
from cmtool.errors import Hint, Setting, UsageError

__all__ = ["ImageV1", "image_v1"]


class Fourier(nn.Module):
    """``(cos 2 pi f c, sin 2 pi f c)`` with frequencies ``f ~ N(0, 1)`` that are not learnt, [B] -> [B, wide]."""

    weight: Tensor

    def __init__(self, wide: int):
        super().__init__()
        self.register_buffer("weight", torch.randn(wide // 2, 1))

    def forward(self, c: Tensor) -> Tensor:
        angles = (2 * math.pi * c)[:, None] * self.weight[:, 0].to(c)
        return torch.cat([angles.cos(), angles.sin()], 1)


@dataclass(frozen=True)
class ImageV1Config:
    """``wide`` numbers tell of the level; ``depths`` blocks at each level have ``widths`` channels."""

    channels: int
    classes: int
    wide: int
    widths: tuple[int, ...]
    depths: tuple[int, ...]
    attention: tuple[int, ...]
    patch: int
    dropout: float
    augment_dim: int
    target_dim: int
    learn_variance: bool

    def stack(self, level: int, inputs: int, outputs: int) -> list[nn.Module]:
        """The blocks of a level, each with attention where the level has it."""
        inner, parts = self.widths[level], []
        for i in range(self.depths[level]):
            after = outputs if i == self.depths[level] - 1 else inner
            parts.append(Block(inner if i else inputs, inner, after, self.wide, self.dropout))
            if level in self.attention:
                parts.append(Attention(after, self.wide, self.dropout))
        return parts

    def down(self, level: int) -> nn.ModuleList:
        resize = Resize(up=False) if level else nn.Identity()
        return nn.ModuleList([resize, *self.stack(level, self.widths[max(level - 1, 0)], self.widths[level])])

    def up(self, level: int) -> nn.ModuleList:
        lowest, resize = level == len(self.widths) - 1, Resize(up=True) if level else nn.Identity()
        inputs, outputs = self.widths[level] * (1 if lowest else 2), self.widths[max(level - 1, 0)]
        return nn.ModuleList([*self.stack(level, inputs, outputs), resize])


class ImageV1(nn.Module):
    """``net(x [B, C, H, W], c_noise [B], labels [B] or None, augment_labels, target) -> [B, C, H, W]``.

    ``augment_labels`` [B, augment_dim] and ``target`` [B, target_dim] may be None.

    The published networks know no classes; ``label`` is of those that are trained here.
    """

    def __init__(self, plan: ImageV1Config):
        super().__init__()
        self.plan = plan
        pixels, wide, levels = plan.channels * plan.patch**2, plan.wide, range(len(plan.widths))
        self.timestep_embed = Fourier(wide)
        self.mapping_cond = zero(nn.Linear(plan.augment_dim, wide, bias=False)) if plan.augment_dim else None
        self.map_target = zero(nn.Linear(plan.target_dim, wide, bias=False)) if plan.target_dim else None
        self.label = nn.Embedding(plan.classes, wide) if plan.classes else None
        self.mapping = nn.Sequential(nn.Linear(wide, wide), nn.GELU(), nn.Linear(wide, wide), nn.GELU())
        self.proj_in = nn.Conv2d(pixels, plan.widths[0], 1)
        self.proj_out = zero(nn.Conv2d(plan.widths[0], pixels + plan.learn_variance, 1))
        blocks = {"d_blocks": [plan.down(i) for i in levels], "u_blocks": [plan.up(i) for i in reversed(levels)]}
        self.u_net = nn.ModuleDict({name: nn.ModuleList(parts) for name, parts in blocks.items()})

    def forward(
        self,
        x: Tensor,
        c_noise: Tensor,
        labels: Tensor | None = None,
        augment_labels: Tensor | None = None,
        target: Tensor | None = None,
    ) -> Tensor:
        out = self.outputs(x, c_noise, labels, augment_labels, target)[:, : x.shape[1] * self.plan.patch**2]
        return F.pixel_shuffle(out, self.plan.patch)

    def outputs(
        self,
        x: Tensor,
        c_noise: Tensor,
        labels: Tensor | None = None,
        augment_labels: Tensor | None = None,
        target: Tensor | None = None,
    ) -> Tensor:
        """Patches as they leave the network; with ``learn_variance`` the last channel is of the variance."""
        told = self.embed(c_noise, labels, augment_labels, target)
        h, across = self.proj_in(F.pixel_unshuffle(x, self.plan.patch)), []
        for parts in self.u_net["d_blocks"]:  # type: ignore[union-attr]
            h = run_blocks(parts, h, told)
            across.append(h)
        h = across.pop()
        for i, parts in enumerate(self.u_net["u_blocks"]):  # type: ignore[arg-type]
            h = run_blocks(parts, torch.cat([h, across.pop()], 1) if i else h, told)
        return self.proj_out(h)

    def embed(
        self, c_noise: Tensor, labels: Tensor | None, augment_labels: Tensor | None, target: Tensor | None
    ) -> Tensor:
        """Noise level, class and what else there is, [B, wide]; what is None adds nothing."""
        told = self.timestep_embed(c_noise)
        if self.mapping_cond is not None and augment_labels is not None:
            told = told + self.mapping_cond(augment_labels)
        if self.map_target is not None and target is not None:
            told = told + self.map_target(target)
        if self.label is not None and labels is not None:
            told = told + self.label(labels.clamp(min=0)) * (labels >= 0)[:, None]
        return self.mapping(told)


def run_blocks(parts: nn.Module, h: Tensor, told: Tensor) -> Tensor:
    """The parts of one level, in their order."""
    for part in parts:  # type: ignore[attr-defined]
        h = part(h, told) if not isinstance(part, nn.Identity) else h
    return h


def image_v1(
    shape: tuple[int, ...],
    classes: int,
    *,
    wide: int = 256,
    widths: tuple[int, ...] = (64, 128),
    depths: tuple[int, ...] | None = None,
    attention: tuple[int, ...] | None = None,
    patch: int = 1,
    dropout: float = 0.0,
    augment_dim: int = 0,
    target_dim: int = 0,
    learn_variance: bool = False,
) -> nn.Module:
    """k-diffusion's U-Net for images ``shape`` = (C, H, W) whose sides are multiples of ``patch 2^(levels - 1)``.

    ``widths`` are the channels of each level, ``depths`` its blocks on the way down and as many on the way up, 2 when
    left out; ``attention`` lists the levels that have it, all but the first when left out. Images are cut into patches
    of ``patch`` pixels a side. ``wide`` numbers tell of the noise level, ``augment_dim`` may say how a
    training image was augmented and ``target_dim`` where a step of a flow map ends, and ``learn_variance`` adds a
    channel that is not returned.
    """
    depths = tuple(depths or [2] * len(widths))
    attention = tuple(range(1, len(widths))) if attention is None else tuple(attention)
    stack = (wide, tuple(widths), depths, attention, patch)
    check(shape, *stack)
    return ImageV1(ImageV1Config(shape[0], classes, *stack, dropout, augment_dim, target_dim, learn_variance))


def check(
    shape: tuple[int, ...],
    wide: int,
    widths: tuple[int, ...],
    depths: tuple[int, ...],
    attention: tuple[int, ...],
    patch: int,
) -> None:
    """UsageError for numbers that no such network can have."""
    if len(shape) != 3:
        raise UsageError(
            f"image_v1 needs images, and these are {'x'.join(map(str, shape))}",
            Hint("try {}", Setting("backbone", "mlp")),
        )
    multiple = patch * 2 ** (len(widths) - 1)
    if any(side % multiple or side < 2 * multiple for side in shape[1:]):
        raise UsageError(
            f"image_v1 with {len(widths)} levels and patches of {patch} needs sides that are a multiple of {multiple},"
            f" twice it at least, and {shape[1]}x{shape[2]} is not",
            "set fewer levels: backbone.widths=[64]",
        )
    if len(depths) != len(widths) or min(depths) < 1:
        raise UsageError(f"image_v1 needs a depth for each of {len(widths)} levels", "set backbone.depths=[2,2]")
    if wide < 2 or wide % 2:
        raise UsageError(f"image_v1 needs an even number of waves, and not {wide}", "set backbone.wide=256")
    for level, channels in enumerate(widths):
        reach = {channels, 2 * channels} if level < len(widths) - 1 else {channels}
        if any(n % max(1, n // GROUP) for n in reach):
            raise UsageError(
                f"image_v1 cannot cut {channels} channels into groups of {GROUP}", "take multiples of 32: [64,128]"
            )
        looks = level in attention or level + 1 in attention  # the last block on the way up has the finer level's
        if looks and channels % max(1, channels // HEAD):
            raise UsageError(f"image_v1 cannot cut {channels} channels into heads of {HEAD}", "take multiples of 64")
