"""EDM's own variant of ADM, under the names of its weights.

It differs from OpenAI's in the names, in the order of queries, keys and values, and in the way the class enters.
Source: Karras et al. 2022, arXiv 2206.00364, table 7; Dhariwal and Nichol 2021, arXiv 2105.05233.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cmtool.backbones.adm import sinusoidal_embedding
from cmtool.backbones.edm_blocks import Block, BlockOptions, Conv, layer_name, norm, one_hot
from cmtool.backbones.shared_options import (
    AttnResolutions,
    AugmentDim,
    ChannelMult,
    Dropout,
    LearnVariance,
    ModelChannels,
    NumBlocks,
    NumHeadChannels,
    TargetDim,
    default_channel_mult,
    resolutions,
)
from cmtool.errors import UsageError
from cmtool.options.plugin_option import Option
from cmtool.options.types import at_least

__all__ = ["DhariwalUNet", "dhariwal"]


@dataclass(frozen=True)
class DhariwalUNetConfig:
    """``levels`` are (side, channels), the finest first; ``attn_resolutions`` holds the sides that have attention."""

    channels: int
    outputs: int
    classes: int
    augment_dim: int
    target_dim: int
    model_channels: int
    levels: tuple[tuple[int, int], ...]
    num_blocks: int
    attn_resolutions: tuple[int, ...]
    options: BlockOptions


class DhariwalUNet(nn.Module):
    """``net(x [B, C, H, W], c_noise [B], labels [B], augment_labels [B, A], target [B, T]) -> [B, C, H, W]``."""

    def __init__(self, config: DhariwalUNetConfig):
        super().__init__()
        self.config, width, embedding = config, config.model_channels, config.options.embedding
        first = config.levels[0][1]
        self.map_augment = nn.Linear(config.augment_dim, width, bias=False) if config.augment_dim else None
        self.map_target = nn.Linear(config.target_dim, width, bias=False) if config.target_dim else None
        self.map_layer0 = nn.Linear(width, embedding)
        self.map_layer1 = nn.Linear(embedding, embedding)
        self.map_label = nn.Linear(config.classes, embedding, bias=False) if config.classes else None
        self.enc, skips = encoder(config)
        self.dec = decoder(config, skips)
        self.out_norm = norm(first, config.options.eps)
        self.out_conv = Conv(first, config.outputs, 3, zero=True)

    def forward(
        self,
        x: Tensor,
        c_noise: Tensor,
        labels: Tensor | None = None,
        augment_labels: Tensor | None = None,
        target: Tensor | None = None,
    ) -> Tensor:
        return self.outputs(x, c_noise, labels, augment_labels, target)[:, : x.shape[1]]

    def outputs(
        self,
        x: Tensor,
        c_noise: Tensor,
        labels: Tensor | None = None,
        augment_labels: Tensor | None = None,
        target: Tensor | None = None,
    ) -> Tensor:
        """All channels that the network has: with ``learn_variance`` those of the variance come after the first C."""
        embedding, skips = self.embed(c_noise, labels, augment_labels, target), []
        for name, layer in self.enc.items():
            x = layer(x) if name.endswith("conv") else layer(x, embedding)
            skips.append(x)
        for name, layer in self.dec.items():
            x = layer(torch.cat([x, skips.pop()], 1) if "block" in name else x, embedding)
        return self.out_conv(F.silu(self.out_norm(x)))

    def embed(
        self,
        c_noise: Tensor,
        labels: Tensor | None,
        augment_labels: Tensor | None = None,
        target: Tensor | None = None,
    ) -> Tensor:
        """Noise level, class and the other conditions, [B, embedding]; what is None adds nothing."""
        embedding = sinusoidal_embedding(c_noise, self.config.model_channels)
        if self.map_augment is not None and augment_labels is not None:
            embedding = embedding + self.map_augment(augment_labels)
        if self.map_target is not None and target is not None:
            embedding = embedding + self.map_target(target)
        embedding = self.map_layer1(F.silu(self.map_layer0(embedding)))
        if self.map_label is not None:
            embedding = embedding + self.map_label(one_hot(labels, c_noise, self.config.classes))
        return F.silu(embedding)


def encoder(config: DhariwalUNetConfig) -> tuple[nn.ModuleDict, list[int]]:
    """The layers down to the lowest resolution, and the channels of the skip connections that leave them."""
    layers, options, (finest, channels) = nn.ModuleDict(), config.options, config.levels[0]
    skips = [channels]
    layers[layer_name(finest, "conv")] = Conv(config.channels, channels, 3)
    for level, (side, outputs) in enumerate(config.levels):
        if level:
            layers[layer_name(side, "down")] = Block(channels, channels, options, "down")
            skips.append(channels)
        for i in range(config.num_blocks):
            attention = side in config.attn_resolutions
            layers[layer_name(side, f"block{i}")] = Block(channels, outputs, options, attention=attention)
            channels = outputs
            skips.append(channels)
    return layers, skips


def decoder(config: DhariwalUNetConfig, skips: list[int]) -> nn.ModuleDict:
    """The layers from the lowest resolution up, each of which takes one skip connection, the last first."""
    layers, options, (lowest, channels), left = nn.ModuleDict(), config.options, config.levels[-1], list(skips)
    layers[layer_name(lowest, "in0")] = Block(channels, channels, options, attention=True)
    layers[layer_name(lowest, "in1")] = Block(channels, channels, options)
    for side, outputs in reversed(config.levels):
        if side != lowest:
            layers[layer_name(side, "up")] = Block(channels, channels, options, "up")
        for i in range(config.num_blocks + 1):
            inputs, attention = channels + left.pop(), side in config.attn_resolutions
            layers[layer_name(side, f"block{i}")] = Block(inputs, outputs, options, attention=attention)
            channels = outputs
    return layers


def dhariwal(
    shape: tuple[int, ...],
    classes: int,
    *,
    model_channels: ModelChannels = 64,
    channel_mult: ChannelMult = None,
    num_blocks: NumBlocks = 2,
    attn_resolutions: AttnResolutions = None,
    num_head_channels: NumHeadChannels = 64,
    channel_mult_emb: Annotated[
        int, Option("numbers of the embedding, in multiples of model_channels", at_least(1))
    ] = 4,
    dropout: Dropout = 0.0,
    augment_dim: AugmentDim = 0,
    target_dim: TargetDim = 0,
    learn_variance: LearnVariance = False,
) -> DhariwalUNet:
    """EDM's variant of ADM, for images whose sides are multiples of ``2^(levels - 1)``.

    Paper: Karras et al. 2022, arXiv 2206.00364, table 7; Dhariwal and Nichol 2021, arXiv 2105.05233.
    Use: for the size of ImageNet at 64 pixels; there the published network has ``model_channels`` 192,
    ``channel_mult`` 1, 2, 3, 4 and ``num_blocks`` 3.

    The decoder has one block more than the encoder at each resolution. Attention is at 32 pixels and below when left
    out; resolutions of fewer channels than ``num_head_channels`` have none.
    """
    if model_channels % 2:
        raise UsageError(
            "dhariwal needs an even number of model_channels", "take a backbone.model_channels that is a multiple of 32"
        )
    channel_mult = tuple(channel_mult or default_channel_mult(*shape[1:]))
    sides = resolutions("dhariwal", shape, len(channel_mult))
    attended = tuple(n for n in sides if n <= 32) if attn_resolutions is None else tuple(attn_resolutions)
    levels = tuple((side, model_channels * mult) for side, mult in zip(sides, channel_mult, strict=True))
    for side, channels in levels:
        if side in attended and channels >= num_head_channels and channels % (channels // num_head_channels):
            heads = channels // num_head_channels
            raise UsageError(
                f"{channels} channels cannot be shared by {heads} heads", "set another backbone.num_head_channels"
            )
    options = BlockOptions(channel_mult_emb * model_channels, dropout, True, False, 1.0, 1e-5, num_head_channels)
    outputs = shape[0] * (2 if learn_variance else 1)
    stack = model_channels, levels, num_blocks, attended, options
    return DhariwalUNet(DhariwalUNetConfig(shape[0], outputs, classes, augment_dim, target_dim, *stack))
