"""The U-Net of Dhariwal and Nichol, with which ADM, guided-diffusion and OpenAI's consistency models were trained.

The names of the weights are those of the published files, so that a file's tensors are the network's ``state_dict``.
Source: Dhariwal and Nichol 2021, arXiv 2105.05233, section 3 and appendix A.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cmtool.backbones.adm_blocks import QKV, Attention, Block, Down, Norm, Up, zero
from cmtool.backbones.unet import default_channel_mult
from cmtool.errors import Hint, Setting, UsageError, unknown_name

__all__ = ["ADM", "ADMConfig", "adm", "sinusoidal_embedding"]

CHANNEL_MULT: dict[int, tuple[float, ...]] = {  # of the published networks, by the side of their images
    64: (1, 2, 3, 4),
    128: (1, 1, 2, 3, 4),
    256: (1, 1, 2, 2, 4, 4),
    512: (0.5, 1, 1, 2, 2, 4, 4),
}
ATTN_RESOLUTIONS = (32, 16, 8)  # sides of the grids at which positions look at each other, unless told otherwise


@dataclass(frozen=True)
class ADMConfig:
    """What all blocks have in common, and how they are stacked."""

    channels: int
    classes: int
    model_channels: int
    channel_mult: tuple[float, ...]
    num_blocks: int
    attention: tuple[int, ...]
    heads: int | None
    heads_upsample: int | None
    head_width: int
    qkv: str
    scale_shift: bool
    updown: bool
    resample_conv: bool
    learn_variance: bool
    dropout: float

    def block(self, inputs: int, outputs: int, resize: str = "") -> Block:
        return Block(inputs, outputs, 4 * self.model_channels, self.dropout, self.scale_shift, resize)

    def look(self, channels: int, up: bool = False) -> Attention:
        return Attention(channels, self.heads_of(channels, up), self.qkv)

    def heads_of(self, channels: int, up: bool = False) -> int:
        """How many heads so many channels have, on the way down or ``up``."""
        return (up and self.heads_upsample) or self.heads or channels // self.head_width

    def stage(self, inputs: int, level: int, up: bool = False) -> list[nn.Module]:
        """A block and, where the level has it, attention."""
        outputs = self.at(level)
        return [self.block(inputs, outputs), *([self.look(outputs, up)] if level in self.attention else [])]

    def at(self, level: int) -> int:
        """Channels of a level."""
        return int(self.channel_mult[level] * self.model_channels)

    def down(self, channels: int) -> nn.Module:
        return self.block(channels, channels, "down") if self.updown else Down(channels, self.resample_conv)

    def up(self, channels: int) -> nn.Module:
        return self.block(channels, channels, "up") if self.updown else Up(channels, self.resample_conv)


class ADM(nn.Module):
    """``net(x [B, C, H, W], c_noise [B], labels [B] or None) -> [B, C, H, W]``; ``outputs`` also has the variance.

    The published networks were told the level as ``250 ln sigma`` or as the number of a step, 0 to 1000.
    """

    def __init__(self, plan: ADMConfig):
        super().__init__()
        self.plan, wide = plan, 4 * plan.model_channels
        self.time_embed = nn.Sequential(nn.Linear(plan.model_channels, wide), nn.SiLU(), nn.Linear(wide, wide))
        if plan.classes:
            self.label_emb = nn.Embedding(plan.classes, wide)
        here = plan.at(0)
        entries, across = [nn.ModuleList([nn.Conv2d(plan.channels, here, 3, padding=1)])], [here]
        levels = range(len(plan.channel_mult))
        for level in levels:
            for _ in range(plan.num_blocks):
                entries.append(nn.ModuleList(plan.stage(here, level)))
                here = plan.at(level)
                across.append(here)
            if level < levels[-1]:
                entries.append(nn.ModuleList([plan.down(here)]))
                across.append(here)
        self.input_blocks = nn.ModuleList(entries)
        self.middle_block = nn.ModuleList([plan.block(here, here), plan.look(here), plan.block(here, here)])
        exits = []
        for level in reversed(levels):
            for i in range(plan.num_blocks + 1):
                parts = plan.stage(here + across.pop(), level, up=True)
                here = plan.at(level)
                exits.append(nn.ModuleList([*parts, *([plan.up(here)] if level and i == plan.num_blocks else [])]))
        self.output_blocks = nn.ModuleList(exits)
        results = plan.channels * (2 if plan.learn_variance else 1)
        self.out = nn.Sequential(Norm(here), nn.SiLU(), zero(nn.Conv2d(here, results, 3, padding=1)))

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.outputs(x, c_noise, labels)[:, : x.shape[1]]

    def outputs(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """All channels that the network has: with ``learn_variance`` those of the variance come after the first C."""
        embedding = F.silu(self.embed(c_noise, labels))
        h, across = x.to(self.input_blocks[0][0].weight.dtype), []  # type: ignore[index, union-attr]
        for parts in self.input_blocks:
            h = run_blocks(parts, h, embedding)
            across.append(h)
        h = run_blocks(self.middle_block, h, embedding)
        for parts in self.output_blocks:
            h = run_blocks(parts, torch.cat([h, across.pop()], 1), embedding)
        return self.out(h.to(x.dtype))

    def embed(self, c_noise: Tensor, labels: Tensor | None) -> Tensor:
        """Level and class, [B, 4 width]; "no class" adds nothing."""
        embedding = self.time_embed(sinusoidal_embedding(c_noise, self.plan.model_channels))
        if labels is None or not self.plan.classes:
            return embedding
        return embedding + self.label_emb(labels.clamp(min=0)) * (labels >= 0)[:, None]


def run_blocks(parts: nn.Module, h: Tensor, embedding: Tensor) -> Tensor:
    """One entry of a list of blocks; only residual blocks are told level and class."""
    for part in parts:  # type: ignore[attr-defined]
        h = part(h, embedding) if isinstance(part, Block) else part(h)
    return h


def to_half(net: ADM) -> ADM:
    """Convolutions of the torso in float16; what is added up, normalised or given out stays in float32."""
    for part in (net.input_blocks, net.middle_block, net.output_blocks):
        for module in part.modules():
            if isinstance(module, nn.Conv1d | nn.Conv2d):
                module.half()
    return net


def sinusoidal_embedding(c: Tensor, width: int) -> Tensor:
    """``(cos w_i c, sin w_i c)`` with ``w_i = 10000^(-i / n)``, i = 0 .. n - 1 and n = width / 2, [B] -> [B, width].

    Source: Vaswani et al. 2017, arXiv 1706.03762, section 3.5, cosines first and without the lowest frequency.
    """
    n = width // 2
    frequencies = torch.exp(-math.log(10_000) / n * torch.arange(n, dtype=torch.float32, device=c.device)).to(c)
    angle = c[:, None] * frequencies
    return torch.cat([angle.cos(), angle.sin()], 1)


def adm(
    shape: tuple[int, ...],
    classes: int,
    *,
    model_channels: int = 64,
    channel_mult: tuple[float, ...] | None = None,
    num_blocks: int = 2,
    attention: tuple[int, ...] | None = None,
    heads: int | None = None,
    heads_upsample: int | None = None,
    head_width: int = 64,
    qkv: str = "flash",
    scale_shift: bool = True,
    updown: bool = True,
    resample_conv: bool = True,
    learn_variance: bool = False,
    dropout: float = 0.0,
    half: bool = False,
) -> nn.Module:
    """The published U-Net for square images ``shape`` = (C, H, W) whose side is a multiple of 2^(levels - 1).

    ``model_channels`` channels times ``channel_mult`` at each level, ``attention`` lists the levels that have it (the
    middle always does) with ``heads`` heads, on the way up ``heads_upsample`` where those are others, or as many as are
    ``head_width`` wide; ``qkv`` is how its weights are laid out: "flash" (OpenAI's consistency models), "new" or
    "legacy" (guided-diffusion). ``scale_shift`` lets the embedding scale and shift the second normalisation instead of
    being added; ``updown`` resizes in residual blocks instead of in convolutions, or without ``resample_conv`` by means
    and repetition alone; ``learn_variance`` doubles the outputs, of which the first half is returned; ``half`` keeps
    the convolutions in float16, for inference.
    """
    if len(shape) != 3 or shape[1] != shape[2]:
        raise UsageError(
            f"adm needs square images, and these are {'x'.join(map(str, shape))}",
            Hint("try {}", Setting("backbone", "mlp")),
        )
    channels, side, _ = shape
    channel_mult = tuple(channel_mult or CHANNEL_MULT.get(side) or default_channel_mult(side))
    if attention is None:
        attention = tuple(level for level in range(len(channel_mult)) if side >> level in ATTN_RESOLUTIONS)
    stack = (model_channels, channel_mult, num_blocks, tuple(attention))
    hidden = heads, heads_upsample, head_width, qkv
    plan = ADMConfig(channels, classes, *stack, *hidden, scale_shift, updown, resample_conv, learn_variance, dropout)
    check(plan, side)
    return to_half(ADM(plan)) if half else ADM(plan)


def check(plan: ADMConfig, side: int) -> None:
    """UsageError for numbers that no such network can have."""
    multiple = 2 ** (len(plan.channel_mult) - 1)
    if side % multiple:
        raise UsageError(
            f"adm with {len(plan.channel_mult)} levels needs a side that is a multiple of {multiple},"
            f" and {side} is not",
            "set backbone.channel_mult=[1,2]",
        )
    if plan.qkv not in QKV:
        raise unknown_name("layout of qkv", plan.qkv, QKV)
    for level in range(len(plan.channel_mult)):
        channels = plan.at(level)
        if channels < 32 or channels % 32:
            raise UsageError(
                f"adm needs levels of a multiple of 32 channels, and one would have {channels}",
                "try backbone.model_channels=64",
            )
        if not (level in plan.attention or level == len(plan.channel_mult) - 1):
            continue
        for heads in (plan.heads, plan.heads_upsample if level in plan.attention else None):
            if channels % (heads or plan.heads or plan.head_width):
                cut = f"{heads} heads" if heads else f"heads {plan.head_width} wide"
                raise UsageError(f"adm cannot cut {channels} channels into {cut}", "try backbone.head_width=32")
    if plan.heads_upsample and not plan.heads:
        raise UsageError("heads on the way up are counted only where all are", "set backbone.heads, too")
