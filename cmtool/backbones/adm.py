"""The U-Net of Dhariwal and Nichol, with which ADM, guided-diffusion and OpenAI's consistency models were trained.

The names of the weights are those of the published files, so that a file's tensors are the network's ``state_dict``.
Source: Dhariwal and Nichol 2021, arXiv 2105.05233, section 3 and appendix A.
"""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cmtool.backbones.adm_blocks import QKV, Attention, Block, Down, Norm, Up, zero
from cmtool.backbones.shared_options import (
    AttnResolutions,
    Dropout,
    FractionalChannelMult,
    LearnVariance,
    ModelChannels,
    NumBlocks,
    NumHeadChannels,
    default_channel_mult,
    resolutions,
    shorter_side,
)
from cmtool.errors import UsageError
from cmtool.options.plugin_option import Option
from cmtool.options.types import at_least

__all__ = ["ADM", "ADMConfig", "adm", "sinusoidal_embedding"]

CHANNEL_MULT: dict[int, tuple[float, ...]] = {  # of the published networks, by the side of their images
    64: (1, 2, 3, 4),
    128: (1, 1, 2, 3, 4),
    256: (1, 1, 2, 2, 4, 4),
    512: (0.5, 1, 1, 2, 2, 4, 4),
}
ATTN_RESOLUTIONS = (32, 16, 8)  # of the published networks


@dataclass(frozen=True)
class ADMConfig:
    """What all blocks have in common, and how they are stacked; ``resolutions`` are the sides, the finest first."""

    channels: int
    classes: int
    model_channels: int
    channel_mult: tuple[float, ...]
    num_blocks: int
    resolutions: tuple[int, ...]
    attn_resolutions: tuple[int, ...]
    num_heads: int | None
    num_heads_upsample: int | None
    num_head_channels: int
    qkv: str
    use_scale_shift_norm: bool
    resblock_updown: bool
    conv_resample: bool
    learn_variance: bool
    dropout: float

    def has_attention(self, level: int) -> bool:
        return self.resolutions[level] in self.attn_resolutions

    def channels_at(self, level: int) -> int:
        return int(self.channel_mult[level] * self.model_channels)

    def heads_for(self, channels: int, up: bool = False) -> int:
        """How many heads so many channels have, in the encoder or in the decoder (``up``)."""
        return (up and self.num_heads_upsample) or self.num_heads or channels // self.num_head_channels

    def block(self, inputs: int, outputs: int, resize: str = "") -> Block:
        return Block(inputs, outputs, 4 * self.model_channels, self.dropout, self.use_scale_shift_norm, resize)

    def attention(self, channels: int, up: bool = False) -> Attention:
        return Attention(channels, self.heads_for(channels, up), self.qkv)

    def stage(self, inputs: int, level: int, up: bool = False) -> list[nn.Module]:
        """A block and, where the level has it, attention."""
        outputs = self.channels_at(level)
        return [self.block(inputs, outputs), *([self.attention(outputs, up)] if self.has_attention(level) else [])]

    def down(self, channels: int) -> nn.Module:
        return self.block(channels, channels, "down") if self.resblock_updown else Down(channels, self.conv_resample)

    def up(self, channels: int) -> nn.Module:
        return self.block(channels, channels, "up") if self.resblock_updown else Up(channels, self.conv_resample)


class ADM(nn.Module):
    """``net(x [B, C, H, W], c_noise [B], labels [B] or None) -> [B, C, H, W]``; ``outputs`` also has the variance.

    The published networks take as ``c_noise`` either ``250 ln sigma`` or the number of a step, 0 to 1000.
    """

    def __init__(self, config: ADMConfig):
        super().__init__()
        self.config, embedding = config, 4 * config.model_channels
        self.time_embed = nn.Sequential(
            nn.Linear(config.model_channels, embedding), nn.SiLU(), nn.Linear(embedding, embedding)
        )
        if config.classes:
            self.label_emb = nn.Embedding(config.classes, embedding)
        channels = config.channels_at(0)
        encoder, skips = [Parts([nn.Conv2d(config.channels, channels, 3, padding=1)])], [channels]
        levels = range(len(config.channel_mult))
        for level in levels:
            for _ in range(config.num_blocks):
                encoder.append(Parts(config.stage(channels, level)))
                channels = config.channels_at(level)
                skips.append(channels)
            if level < levels[-1]:
                encoder.append(Parts([config.down(channels)]))
                skips.append(channels)
        self.input_blocks = nn.ModuleList(encoder)
        self.middle_block = Parts(
            [config.block(channels, channels), config.attention(channels), config.block(channels, channels)]
        )
        decoder = []
        for level in reversed(levels):
            for i in range(config.num_blocks + 1):
                parts = config.stage(channels + skips.pop(), level, up=True)
                channels = config.channels_at(level)
                decoder.append(Parts([*parts, *([config.up(channels)] if level and i == config.num_blocks else [])]))
        self.output_blocks = nn.ModuleList(decoder)
        outputs = config.channels * (2 if config.learn_variance else 1)
        self.out = nn.Sequential(Norm(channels), nn.SiLU(), zero(nn.Conv2d(channels, outputs, 3, padding=1)))

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.outputs(x, c_noise, labels)[:, : x.shape[1]]

    def outputs(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """All channels that the network has: with ``learn_variance`` those of the variance come after the first C."""
        embedding = F.silu(self.embed(c_noise, labels))
        h, skips = x.to(self.get_parameter("input_blocks.0.0.weight").dtype), []
        for parts in self.input_blocks:
            h = parts(h, embedding)
            skips.append(h)
        h = self.middle_block(h, embedding)
        for parts in self.output_blocks:
            h = parts(torch.cat([h, skips.pop()], 1), embedding)
        return self.out(h.to(x.dtype))

    def embed(self, c_noise: Tensor, labels: Tensor | None) -> Tensor:
        """Noise level and class, [B, 4 model_channels]; "no class" adds nothing."""
        embedding = self.time_embed(sinusoidal_embedding(c_noise, self.config.model_channels))
        if labels is None or not self.config.classes:
            return embedding
        return embedding + self.label_emb(labels.clamp(min=0)) * (labels >= 0)[:, None]


class Parts(nn.ModuleList):
    """The modules of one entry of the encoder or the decoder; only residual blocks take the embedding."""

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        for part in self:
            h = part(h, embedding) if isinstance(part, Block) else part(h)
        return h


def to_half(net: ADM) -> ADM:
    """Convolutions of the torso in float16; what is added up, normalised or given out stays in float32."""
    for part in (net.input_blocks, net.middle_block, net.output_blocks):
        for module in part.modules():
            if isinstance(module, nn.Conv1d | nn.Conv2d):
                module.half()
    return net


def sinusoidal_embedding(c: Tensor, dim: int) -> Tensor:
    """``(cos w_i c, sin w_i c)`` with ``w_i = 10000^(-i / n)``, i = 0 .. n - 1 and n = dim / 2, [B] -> [B, dim].

    Source: Vaswani et al. 2017, arXiv 1706.03762, section 3.5, cosines first and without the lowest frequency.
    """
    n = dim // 2
    frequencies = torch.exp(-math.log(10_000) / n * torch.arange(n, dtype=torch.float32, device=c.device)).to(c)
    angle = c[:, None] * frequencies
    return torch.cat([angle.cos(), angle.sin()], 1)


def adm(
    shape: tuple[int, ...],
    classes: int,
    *,
    model_channels: ModelChannels = 64,
    channel_mult: FractionalChannelMult = None,
    num_blocks: NumBlocks = 2,
    attn_resolutions: AttnResolutions = None,
    num_heads: Annotated[int | None, Option("attention heads, in place of num_head_channels", at_least(1))] = None,
    num_heads_upsample: Annotated[
        int | None, Option("attention heads of the decoder, where they are others", at_least(1))
    ] = None,
    num_head_channels: NumHeadChannels = 64,
    qkv: Annotated[
        str,
        Option(
            "layout of the weights of queries, keys and values: flash as in OpenAI's consistency models,"
            " new or legacy as in guided-diffusion",
            choices=tuple(QKV),
        ),
    ] = "flash",
    use_scale_shift_norm: Annotated[
        bool, Option("the embedding scales and shifts the second norm, instead of being added before it")
    ] = True,
    resblock_updown: Annotated[
        bool, Option("residual blocks change the resolution, instead of layers of their own")
    ] = True,
    conv_resample: Annotated[
        bool, Option("where such layers do, they convolve, instead of means and repetition alone")
    ] = True,
    learn_variance: LearnVariance = False,
    dropout: Dropout = 0.0,
    half: Annotated[bool, Option("convolutions in float16, for inference")] = False,
) -> ADM:
    """The U-Net of ADM, for images whose sides are multiples of 2^(levels - 1).

    Paper: Dhariwal and Nichol 2021, arXiv 2105.05233, section 3 and appendix A.
    Use: to train or to read networks as OpenAI published them; the middle always has attention.

    Channels are multiples of 32. What is left out follows from the size: ``channel_mult`` of the published networks,
    and attention at 32, 16 and 8 pixels.
    """
    side = shorter_side(shape)
    channel_mult = tuple(channel_mult or CHANNEL_MULT.get(side) or default_channel_mult(*shape[1:]))
    stack = model_channels, channel_mult, num_blocks, resolutions("adm", shape, len(channel_mult))
    attn_resolutions = ATTN_RESOLUTIONS if attn_resolutions is None else tuple(attn_resolutions)
    heads = num_heads, num_heads_upsample, num_head_channels, qkv
    flags = use_scale_shift_norm, resblock_updown, conv_resample, learn_variance
    config = ADMConfig(shape[0], classes, *stack, attn_resolutions, *heads, *flags, dropout)
    check(config)
    return to_half(ADM(config)) if half else ADM(config)


def check(config: ADMConfig) -> None:
    """UsageError for numbers that no such network can have."""
    for level in range(len(config.channel_mult)):
        channels = config.channels_at(level)
        if channels < 32 or channels % 32:
            raise UsageError(
                f"adm needs levels of a multiple of 32 channels, and one would have {channels}",
                "try backbone.model_channels=64",
            )
        attends, lowest = config.has_attention(level), level == len(config.channel_mult) - 1
        if not (attends or lowest):
            continue
        for heads in (config.num_heads, config.num_heads_upsample if attends else None):
            if channels % (heads or config.num_heads or config.num_head_channels):
                cut = f"{heads} heads" if heads else f"heads {config.num_head_channels} wide"
                raise UsageError(f"adm cannot cut {channels} channels into {cut}", "try backbone.num_head_channels=32")
    if config.num_heads_upsample and not config.num_heads:
        raise UsageError("num_heads_upsample counts heads only where num_heads does", "set backbone.num_heads, too")
