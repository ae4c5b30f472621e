"""The network of EDM2: a U-Net of which every activation and every filter keeps its magnitude.

There are no biases and no group norms. The names of its weights are those of the published files, after their ``unet.``
Source: Karras et al. 2024, arXiv 2312.02696, config G.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cmtool.backbones.magnitude import Conv, Fourier, blend, join, resize, silu, unit
from cmtool.errors import Hint, Setting, UsageError

__all__ = ["EDM2", "edm2"]

Levels = list[tuple[int, int]]


@dataclass(frozen=True)
class Style:
    """What all blocks of a network have in common.

    The residual path has the share ``res_balance``, attention ``attn_balance``, what comes across ``concat_balance``
    and the class ``label_balance``; no activation leaves a block louder than ``clip_act``, if that is given. Levels of
    more than ``dropout_res`` positions a side, if that is given, have no dropout.
    """

    head: int
    dropout: float
    label_balance: float
    concat_balance: float
    res_balance: float
    attn_balance: float
    clip_act: float | None
    dropout_res: int | None = None

    def at(self, side: int) -> "Style":
        return replace(self, dropout=0.0) if self.dropout_res and side > self.dropout_res else self


class Block(nn.Module):
    """Two convolutions beside the main path, the first one's channels scaled by the embedding; attention where asked.

    On the way down (``scale`` 0.5 or 1) pixels are first brought to length 1; on the way up (``up``) they are not.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        embedding: int,
        style: Style,
        scale: float = 1.0,
        up: bool = False,
        attention: bool = False,
    ):
        super().__init__()
        self.scale, self.up, self.style = scale, up, style
        self.heads = heads(outputs, style.head) if attention else 0
        self.emb_gain = nn.Parameter(torch.zeros([]))
        self.conv_res0 = Conv(inputs if up else outputs, outputs, 3)
        self.emb_linear = Conv(embedding, outputs)
        self.conv_res1 = Conv(outputs, outputs, 3)
        self.conv_skip = Conv(inputs, outputs, 1) if inputs != outputs else None
        self.attn_qkv = Conv(outputs, 3 * outputs, 1) if self.heads else None
        self.attn_proj = Conv(outputs, outputs, 1) if self.heads else None

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        x = resize(x, self.scale)
        if not self.up:
            x = unit(self._fit(x), 1)
        h = self.conv_res0(silu(x))
        h = silu(h * (1 + self.emb_linear(embedding, self.emb_gain))[:, :, None, None])
        h = self.conv_res1(F.dropout(h, self.style.dropout, self.training))
        x = self._attend(blend(self._fit(x) if self.up else x, h, self.style.res_balance))
        loudest = self.style.clip_act
        return x if loudest is None else x.clamp(-loudest, loudest)

    def _fit(self, x: Tensor) -> Tensor:
        return self.conv_skip(x) if self.conv_skip else x

    def _attend(self, x: Tensor) -> Tensor:
        """Attention by cosines: queries, keys and values have length 1 for each head (ibid., section 2.2)."""
        if not (self.attn_qkv and self.attn_proj):
            return x
        parts = self.attn_qkv(x).flatten(2).unflatten(1, (self.heads, -1, 3))  # [B, heads, d, 3, N]
        q, k, v = unit(parts, 2).unbind(3)
        weights = torch.softmax(q.transpose(-1, -2) @ k / math.sqrt(q.shape[-2]), -1)
        found = self.attn_proj((v @ weights.transpose(-1, -2)).flatten(1, 2).view_as(x))
        return blend(x, found, self.style.attn_balance)


class EDM2(nn.Module):
    """Down through the levels, up again, with a connection across at each block and each step down.

    ``levels`` are (side, channels), the finest first; ``attention`` holds the sides that have it; the noise level
    enters as ``waves`` cosines and becomes an embedding of ``wide`` numbers.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        levels: Levels,
        blocks: int,
        attention: tuple[int, ...],
        waves: int,
        wide: int,
        style: Style,
    ):
        super().__init__()
        self.classes, self.style = classes, style
        self.out_gain = nn.Parameter(torch.zeros([]))
        self.emb_fourier = Fourier(waves)
        self.emb_noise = Conv(waves, wide)
        self.emb_label = Conv(classes, wide) if classes else None
        self.enc, across = encoder(channels, levels, blocks, attention, wide, style)
        self.dec = decoder(levels, blocks, attention, across, wide, style)
        self.out_conv = Conv(levels[0][1], channels, 3)

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        embedding = self._embedded(c_noise, labels)
        x = torch.cat([x, torch.ones_like(x[:, :1])], 1)  # a channel of ones stands in for the biases
        across: list[Tensor] = []
        for name, layer in self.enc.items():
            x = layer(x) if name.endswith("conv") else layer(x, embedding)
            across.append(x)
        for name, layer in self.dec.items():
            x = layer(join(x, across.pop(), self.style.concat_balance) if "block" in name else x, embedding)
        return self.out_conv(x, self.out_gain)

    def _embedded(self, c_noise: Tensor, labels: Tensor | None) -> Tensor:
        embedding = self.emb_noise(self.emb_fourier(c_noise))
        if self.emb_label is not None:
            labels = torch.full_like(c_noise, -1) if labels is None else labels
            rows = (labels[:, None] == torch.arange(self.classes, device=labels.device)).to(embedding)
            embedding = blend(embedding, self.emb_label(rows * math.sqrt(self.classes)), self.style.label_balance)
        return silu(embedding)


def encoder(
    channels: int, levels: Levels, blocks: int, attention: tuple[int, ...], wide: int, style: Style
) -> tuple[nn.ModuleDict, list[int]]:
    """The way down, and how many channels each of its layers hands across."""
    layers, here = nn.ModuleDict(), levels[0][1]
    across = [here]
    layers[layer_name(levels[0][0], "conv")] = Conv(channels + 1, here, 3)
    for level, (side, outputs) in enumerate(levels):
        if level:
            layers[layer_name(side, "down")] = Block(here, here, wide, style.at(side), 0.5)
            across.append(here)
        for i in range(blocks):
            looks = side in attention
            layers[layer_name(side, f"block{i}")] = Block(here, outputs, wide, style.at(side), attention=looks)
            here = outputs
            across.append(here)
    return layers, across


def decoder(
    levels: Levels, blocks: int, attention: tuple[int, ...], across: list[int], wide: int, style: Style
) -> nn.ModuleDict:
    """The way up, which takes what came across, the last of it first."""
    layers, (lowest, here), left = nn.ModuleDict(), levels[-1], list(across)
    layers[layer_name(lowest, "in0")] = Block(here, here, wide, style.at(lowest), up=True, attention=True)
    layers[layer_name(lowest, "in1")] = Block(here, here, wide, style.at(lowest), up=True)
    for side, outputs in reversed(levels):
        if side != lowest:
            layers[layer_name(side, "up")] = Block(here, here, wide, style.at(side), 2.0, up=True)
        for i in range(blocks + 1):
            inputs, looks = here + left.pop(), side in attention
            layers[layer_name(side, f"block{i}")] = Block(
                inputs, outputs, wide, style.at(side), up=True, attention=looks
            )
            here = outputs
    return layers


def layer_name(side: int, what: str) -> str:
    return f"{side}x{side}_{what}"


def heads(channels: int, head: int) -> int:
    """How many heads of about ``head`` channels, 0 where not one fits; UsageError when they cannot be of one size."""
    n = channels // head
    if n and channels % n:
        raise UsageError(
            f"{channels} channels cannot be shared by {n} heads", "take a width that is a multiple of backbone.head"
        )
    return n


def edm2(
    shape: tuple[int, ...],
    classes: int,
    *,
    model_channels: int = 64,
    channel_mult: tuple[int, ...] | None = None,
    num_blocks: int = 2,
    attention: tuple[int, ...] | None = None,
    head: int = 64,
    channel_mult_noise: int | None = None,
    channel_mult_emb: int | None = None,
    label_balance: float = 0.5,
    concat_balance: float = 0.5,
    res_balance: float = 0.3,
    attn_balance: float = 0.3,
    clip_act: float | None = 256.0,
    dropout: float = 0.0,
    dropout_res: int | None = None,
) -> nn.Module:
    """EDM2's U-Net for square images ``shape`` = (C, H, W) whose side is a multiple of ``2^(levels - 1)``.

    ``width`` channels at the first level, times ``mults`` at each: 1, 2, 3, 4 as published, or fewer where a level
    would have less than 4 positions a side. ``attention`` lists the sides, in positions, of the levels that have it: 16
    and fewer when left out, in heads of ``head`` channels: levels narrower than a head have none. The noise level
    enters as ``channel_mult_noise`` and is embedded as ``channel_mult_emb`` times ``width`` numbers, or as many as the
    first and the widest level have channels. The balances are the shares of the class in the embedding, of what comes
    across, of the residual path and of attention; ``clip_act`` bounds activations. Levels of more than ``dropout_res``
    positions a side have no ``dropout``. The published networks have 3 ``blocks`` a level.
    """
    if len(shape) != 3 or shape[1] != shape[2]:
        raise UsageError(
            f"edm2 needs square images, and these are {'x'.join(map(str, shape))}",
            Hint("try {}", Setting("backbone", "mlp")),
        )
    channels, side, _ = shape
    channel_mult = tuple(channel_mult or default_channel_mult(side))
    multiple = 2 ** (len(channel_mult) - 1)
    if side % multiple:
        raise UsageError(
            f"edm2 with {len(channel_mult)} levels needs a side that is a multiple of {multiple}, and {side} is not",
            f"resize the images to {max(side // multiple, 1) * multiple}, or set backbone.channel_mult=[1,2]",
        )
    if attention is None:
        attention = tuple(side >> level for level in range(len(channel_mult)) if side >> level <= 16)
    levels = [(side >> level, model_channels * mult) for level, mult in enumerate(channel_mult)]
    waves = model_channels * channel_mult_noise if channel_mult_noise else levels[0][1]
    wide = model_channels * channel_mult_emb if channel_mult_emb else max(channels for _, channels in levels)
    shares = (label_balance, concat_balance, res_balance, attn_balance)
    if not all(0 <= share <= 1 for share in shares):
        raise UsageError(f"the balances of edm2 lie between 0 and 1, and these are {', '.join(map(str, shares))}")
    style = Style(head, dropout, *shares, clip_act, dropout_res)
    return EDM2(channels, classes, levels, num_blocks, tuple(attention), waves, wide, style)


def default_channel_mult(side: int) -> tuple[int, ...]:
    """1, 2, 3, 4: a level for every halving that leaves at least 4 positions a side, 4 at the most."""
    mults = [1]
    while side % 2 == 0 and side // 2 >= 4 and len(mults) < 4:
        side, mults = side // 2, [*mults, len(mults) + 1]
    return tuple(mults)
