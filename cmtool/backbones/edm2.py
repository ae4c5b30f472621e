"""The network of EDM2: a U-Net of which every activation and every filter keeps its magnitude.

There are no biases and no group norms. The names of its weights are those of the published files, after their ``unet.``
Source: Karras et al. 2024, arXiv 2312.02696, config G.
"""

import math
from dataclasses import dataclass, replace
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cmtool.backbones.magnitude import Conv, Fourier, blend, join, resize, silu, unit
from cmtool.backbones.shared_options import (
    AttnResolutions,
    ChannelMult,
    Dropout,
    ModelChannels,
    NumBlocks,
    NumHeadChannels,
    count_levels,
    resolutions,
)
from cmtool.errors import UsageError
from cmtool.options.plugin_option import Option
from cmtool.options.types import at_least, between, positive

__all__ = ["EDM2", "edm2"]


@dataclass(frozen=True)
class BlockOptions:
    """What all blocks of a network have in common.

    The residual path has the share ``res_balance``, attention ``attn_balance``, skip connections ``concat_balance``
    and the class ``label_balance``; activations are clipped to ``clip_act``, if that is given. Resolutions above
    ``dropout_res``, if that is given, have no dropout.
    """

    embedding: int
    num_head_channels: int
    dropout: float
    label_balance: float
    concat_balance: float
    res_balance: float
    attn_balance: float
    clip_act: float | None
    dropout_res: int | None = None

    def at(self, side: int) -> "BlockOptions":
        return replace(self, dropout=0.0) if self.dropout_res and side > self.dropout_res else self


class Block(nn.Module):
    """Two convolutions beside the main path, the first one's channels scaled by the embedding; attention where asked.

    In the encoder (``scale`` 0.5 or 1) pixels are first brought to length 1; in the decoder (``up``) they are not.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        options: BlockOptions,
        scale: float = 1.0,
        up: bool = False,
        attention: bool = False,
    ):
        super().__init__()
        self.scale, self.up, self.options = scale, up, options
        self.num_heads = num_heads(outputs, options.num_head_channels) if attention else 0
        self.emb_gain = nn.Parameter(torch.zeros([]))
        self.conv_res0 = Conv(inputs if up else outputs, outputs, 3)
        self.emb_linear = Conv(options.embedding, outputs)
        self.conv_res1 = Conv(outputs, outputs, 3)
        self.conv_skip = Conv(inputs, outputs, 1) if inputs != outputs else None
        self.attn_qkv = Conv(outputs, 3 * outputs, 1) if self.num_heads else None
        self.attn_proj = Conv(outputs, outputs, 1) if self.num_heads else None

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        x = resize(x, self.scale)
        if not self.up:
            x = unit(self._project(x), 1)
        h = self.conv_res0(silu(x))
        h = silu(h * (1 + self.emb_linear(embedding, self.emb_gain))[:, :, None, None])
        h = self.conv_res1(F.dropout(h, self.options.dropout, self.training))
        x = self._attend(blend(self._project(x) if self.up else x, h, self.options.res_balance))
        clip = self.options.clip_act
        return x if clip is None else x.clamp(-clip, clip)

    def _project(self, x: Tensor) -> Tensor:
        return self.conv_skip(x) if self.conv_skip else x

    def _attend(self, x: Tensor) -> Tensor:
        """Cosine attention: queries, keys and values have length 1 for each head (ibid., section 2.2)."""
        if not (self.attn_qkv and self.attn_proj):
            return x
        parts = self.attn_qkv(x).flatten(2).unflatten(1, (self.num_heads, -1, 3))  # [B, heads, d, 3, N]
        q, k, v = unit(parts, 2).unbind(3)
        weights = torch.softmax(q.transpose(-1, -2) @ k / math.sqrt(q.shape[-2]), -1)
        out = self.attn_proj((v @ weights.transpose(-1, -2)).flatten(1, 2).view_as(x))
        return blend(x, out, self.options.attn_balance)


@dataclass(frozen=True)
class EDM2Config:
    """``levels`` are (side, channels), the finest first; ``attn_resolutions`` holds the sides that have attention.

    The noise level enters as ``noise_channels`` cosines.
    """

    channels: int
    classes: int
    levels: list[tuple[int, int]]
    num_blocks: int
    attn_resolutions: tuple[int, ...]
    noise_channels: int
    options: BlockOptions


class EDM2(nn.Module):
    """``net(x [B, C, H, W], c_noise [B], labels [B] or None) -> [B, C, H, W]``."""

    def __init__(self, config: EDM2Config):
        super().__init__()
        self.config, embedding = config, config.options.embedding
        self.out_gain = nn.Parameter(torch.zeros([]))
        self.emb_fourier = Fourier(config.noise_channels)
        self.emb_noise = Conv(config.noise_channels, embedding)
        self.emb_label = Conv(config.classes, embedding) if config.classes else None
        self.enc, skips = encoder(config)
        self.dec = decoder(config, skips)
        self.out_conv = Conv(config.levels[0][1], config.channels, 3)

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        embedding, concat_balance = self.embed(c_noise, labels), self.config.options.concat_balance
        x = torch.cat([x, torch.ones_like(x[:, :1])], 1)  # a channel of ones stands in for the biases
        skips: list[Tensor] = []
        for name, layer in self.enc.items():
            x = layer(x) if name.endswith("conv") else layer(x, embedding)
            skips.append(x)
        for name, layer in self.dec.items():
            x = layer(join(x, skips.pop(), concat_balance) if "block" in name else x, embedding)
        return self.out_conv(x, self.out_gain)

    def embed(self, c_noise: Tensor, labels: Tensor | None) -> Tensor:
        """Noise level and class, [B, embedding]."""
        embedding, classes = self.emb_noise(self.emb_fourier(c_noise)), self.config.classes
        if self.emb_label is not None:
            labels = torch.full_like(c_noise, -1) if labels is None else labels
            rows = (labels[:, None] == torch.arange(classes, device=labels.device)).to(embedding)
            label_balance = self.config.options.label_balance
            embedding = blend(embedding, self.emb_label(rows * math.sqrt(classes)), label_balance)
        return silu(embedding)


def encoder(config: EDM2Config) -> tuple[nn.ModuleDict, list[int]]:
    """The layers down to the lowest resolution, and the channels of the skip connections that leave them."""
    layers, (finest, channels) = nn.ModuleDict(), config.levels[0]
    skips = [channels]
    layers[layer_name(finest, "conv")] = Conv(config.channels + 1, channels, 3)
    for level, (side, outputs) in enumerate(config.levels):
        options = config.options.at(side)
        if level:
            layers[layer_name(side, "down")] = Block(channels, channels, options, 0.5)
            skips.append(channels)
        for i in range(config.num_blocks):
            attention = side in config.attn_resolutions
            layers[layer_name(side, f"block{i}")] = Block(channels, outputs, options, attention=attention)
            channels = outputs
            skips.append(channels)
    return layers, skips


def decoder(config: EDM2Config, skips: list[int]) -> nn.ModuleDict:
    """The layers from the lowest resolution up, each of which takes one skip connection, the last first."""
    layers, (lowest, channels), left = nn.ModuleDict(), config.levels[-1], list(skips)
    options = config.options.at(lowest)
    layers[layer_name(lowest, "in0")] = Block(channels, channels, options, up=True, attention=True)
    layers[layer_name(lowest, "in1")] = Block(channels, channels, options, up=True)
    for side, outputs in reversed(config.levels):
        options = config.options.at(side)
        if side != lowest:
            layers[layer_name(side, "up")] = Block(channels, channels, options, 2.0, up=True)
        for i in range(config.num_blocks + 1):
            inputs, attention = channels + left.pop(), side in config.attn_resolutions
            layers[layer_name(side, f"block{i}")] = Block(inputs, outputs, options, up=True, attention=attention)
            channels = outputs
    return layers


def layer_name(side: int, what: str) -> str:
    return f"{side}x{side}_{what}"


def num_heads(channels: int, num_head_channels: int) -> int:
    """How many heads of about so many channels, 0 where not one fits; UsageError when they cannot be of one size."""
    n = channels // num_head_channels
    if n and channels % n:
        raise UsageError(
            f"{channels} channels cannot be shared by {n} heads",
            "take backbone.model_channels that are a multiple of backbone.num_head_channels",
        )
    return n


SHARE = between(0, 1)


def edm2(
    shape: tuple[int, ...],
    classes: int,
    *,
    model_channels: ModelChannels = 64,
    channel_mult: ChannelMult = None,
    num_blocks: NumBlocks = 2,
    attn_resolutions: AttnResolutions = None,
    num_head_channels: NumHeadChannels = 64,
    channel_mult_noise: Annotated[
        int | None, Option("cosines of the noise level, in multiples of model_channels", at_least(1))
    ] = None,
    channel_mult_emb: Annotated[
        int | None, Option("numbers of the embedding, in multiples of model_channels", at_least(1))
    ] = None,
    label_balance: Annotated[float, Option("share of the class in the embedding", SHARE)] = 0.5,
    concat_balance: Annotated[float, Option("share of the skip connections in what they join", SHARE)] = 0.5,
    res_balance: Annotated[float, Option("share of the residual path of a block", SHARE)] = 0.3,
    attn_balance: Annotated[float, Option("share of attention", SHARE)] = 0.3,
    clip_act: Annotated[float | None, Option("bound of activations", positive())] = 256.0,
    dropout: Dropout = 0.0,
    dropout_res: Annotated[int | None, Option("resolution above which nothing is dropped", at_least(0))] = None,
) -> EDM2:
    """EDM2's U-Net, for images whose sides are multiples of ``2^(levels - 1)``.

    Paper: Karras et al. 2024, arXiv 2312.02696, config G.
    Use: for the methods ``sct`` and ``scd`` at scale, and with post-hoc EMA; the published networks have
    ``num_blocks`` 3.

    What is left out is as published: ``channel_mult`` 1, 2, 3, 4, or fewer where a resolution would have less than 4
    positions a side; attention at 16 pixels and below, where resolutions of fewer channels than ``num_head_channels``
    have none; as many cosines of the noise level as the first resolution has channels, and as many numbers of the
    embedding as the widest has.
    """
    channel_mult = tuple(channel_mult or default_channel_mult(*shape[1:]))
    sides = resolutions("edm2", shape, len(channel_mult))
    attended = tuple(n for n in sides if n <= 16) if attn_resolutions is None else tuple(attn_resolutions)
    levels = [(side, model_channels * mult) for side, mult in zip(sides, channel_mult, strict=True)]
    noise = model_channels * channel_mult_noise if channel_mult_noise else levels[0][1]
    embedding = model_channels * channel_mult_emb if channel_mult_emb else max(channels for _, channels in levels)
    balances = (label_balance, concat_balance, res_balance, attn_balance)
    options = BlockOptions(embedding, num_head_channels, dropout, *balances, clip_act, dropout_res)
    return EDM2(EDM2Config(shape[0], classes, levels, num_blocks, attended, noise, options))


def default_channel_mult(*sides: int) -> tuple[int, ...]:
    """1, 2, 3, 4: a resolution for every halving that leaves at least 4 positions a side, 4 at the most."""
    return tuple(range(1, count_levels(sides, 4) + 1))
