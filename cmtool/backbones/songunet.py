"""DDPM++ and NCSN++ as EDM trained them, under the names of EDM's weights.

DDPM++ is the default; NCSN++ has ``embedding_type`` "fourier", ``encoder_type`` "residual",
``channel_mult_noise`` 2 and ``resample_filter`` 1, 3, 3, 1.
Source: Karras et al. 2022, arXiv 2206.00364, table 7; Song et al. 2021, arXiv 2011.13456, app. H.
"""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cmtool.backbones.edm_blocks import Block, BlockOptions, Conv, layer_name, norm, one_hot
from cmtool.backbones.shared_options import (
    AttnResolutions,
    AugmentDim,
    ChannelMult,
    Dropout,
    LearnVariance,
    ModelChannels,
    NumBlocks,
    TargetDim,
    default_channel_mult,
    resolutions,
)
from cmtool.errors import UsageError
from cmtool.options.plugin_option import Option
from cmtool.options.types import at_least

__all__ = ["SongUNet", "songunet"]


class Positional(nn.Module):
    """Angles ``c 10000^(-i / (n - 1))``, i = 0 .. n - 1 (Vaswani et al. 2017, arXiv 1706.03762, section 3.5)."""

    def __init__(self, n: int):
        super().__init__()
        self.n = n

    def forward(self, c: Tensor) -> Tensor:
        steps = torch.arange(self.n, dtype=torch.float32, device=c.device) / max(self.n - 1, 1)
        return c[:, None] * (10_000**-steps).to(c)


class Fourier(nn.Module):
    """Angles ``2 pi f c`` with frequencies ``f ~ 16 N(0, 1)`` that are not learnt."""

    freqs: Tensor

    def __init__(self, n: int):
        super().__init__()
        self.register_buffer("freqs", 16 * torch.randn(n))

    def forward(self, c: Tensor) -> Tensor:
        return c[:, None] * (2 * math.pi * self.freqs).to(c)


@dataclass(frozen=True)
class SongUNetConfig:
    """``levels`` are (side, channels), the finest first; ``attn_resolutions`` holds the sides that have attention."""

    channels: int
    outputs: int
    classes: int
    augment_dim: int
    target_dim: int
    noise_channels: int
    levels: tuple[tuple[int, int], ...]
    num_blocks: int
    attn_resolutions: tuple[int, ...]
    model_channels: int
    embedding_type: str
    encoder_type: str
    decoder_type: str
    options: BlockOptions


class SongUNet(nn.Module):
    """``net(x [B, C, H, W], c_noise [B], labels [B], augment_labels [B, A], target [B, T]) -> [B, C, H, W]``.

    With the encoder types "skip" and "residual" the image itself enters at lower resolutions, too; with the decoder
    type "skip" the output is the sum of images made at each resolution. These auxiliary layers are called ``aux_*``.
    """

    def __init__(self, config: SongUNetConfig):
        super().__init__()
        self.config, noise, embedding = config, config.noise_channels, config.options.embedding
        self.map_noise = (Fourier if config.embedding_type == "fourier" else Positional)(noise // 2)
        self.map_label = nn.Linear(config.classes, noise) if config.classes else None
        self.map_augment = nn.Linear(config.augment_dim, noise, bias=False) if config.augment_dim else None
        self.map_target = nn.Linear(config.target_dim, noise, bias=False) if config.target_dim else None
        self.map_layer0 = nn.Linear(noise, embedding)
        self.map_layer1 = nn.Linear(embedding, embedding)
        self.enc, skips = encoder(config)
        self.dec = decoder(config, skips)

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
        embedding = self.embed(c_noise, labels, augment_labels, target)
        return self._decode(self._encode(x, embedding), embedding)

    def embed(
        self,
        c_noise: Tensor,
        labels: Tensor | None,
        augment_labels: Tensor | None = None,
        target: Tensor | None = None,
    ) -> Tensor:
        """Noise level, class and the other conditions, [B, embedding]; one-hot classes are brought to mean square 1."""
        angles = self.map_noise(c_noise)
        embedding = torch.cat([angles.sin(), angles.cos()], 1)
        if self.map_label is not None:
            rows = one_hot(labels, c_noise, self.config.classes)
            embedding = embedding + self.map_label(rows * math.sqrt(self.config.classes))
        if self.map_augment is not None and augment_labels is not None:
            embedding = embedding + self.map_augment(augment_labels)
        if self.map_target is not None and target is not None:
            embedding = embedding + self.map_target(target)
        return F.silu(self.map_layer1(F.silu(self.map_layer0(embedding))))

    def _encode(self, x: Tensor, embedding: Tensor) -> list[Tensor]:
        """The skip connections; the last of them is also the input of the decoder."""
        image, skips = x, []
        for name, layer in self.enc.items():
            match name.partition("_")[2]:
                case "aux_down":
                    image = layer(image)
                case "aux_skip":
                    skips.append(skips.pop() + layer(image))
                case "aux_residual":
                    image = (skips.pop() + layer(image)) * math.sqrt(0.5)
                    skips.append(image)
                case "conv":
                    skips.append(layer(x))
                case _:
                    skips.append(layer(skips[-1], embedding))
        return skips

    def _decode(self, skips: list[Tensor], embedding: Tensor) -> Tensor:
        x, normed, image = skips[-1], skips[-1], None
        for name, layer in self.dec.items():
            match name.partition("_")[2]:
                case "aux_up":
                    image = layer(image)
                case "aux_norm":
                    normed = F.silu(layer(x))
                case "aux_conv":
                    image = layer(normed) if image is None else image + layer(normed)
                case _:
                    x = layer(torch.cat([x, skips.pop()], 1) if "block" in name else x, embedding)
        assert image is not None
        return image


def encoder(config: SongUNetConfig) -> tuple[nn.ModuleDict, list[int]]:
    """The layers down to the lowest resolution, and the channels of the skip connections that leave them."""
    layers, channels, image_channels = nn.ModuleDict(), config.model_channels, config.channels
    skips, options = [channels], config.options
    layers[layer_name(config.levels[0][0], "conv")] = Conv(config.channels, channels, 3)
    for level, (side, outputs) in enumerate(config.levels):
        if level:
            layers[layer_name(side, "down")] = Block(channels, channels, options, "down")
            layers.update(image_inputs(config, side, channels, image_channels))
            image_channels = channels if config.encoder_type == "residual" else image_channels
            skips.append(channels)
        for i in range(config.num_blocks):
            attention = side in config.attn_resolutions
            layers[layer_name(side, f"block{i}")] = Block(channels, outputs, options, attention=attention)
            channels = outputs
            skips.append(channels)
    return layers, skips


def image_inputs(config: SongUNetConfig, side: int, channels: int, image_channels: int) -> dict[str, nn.Module]:
    """The layers by which the image itself enters at a lower resolution."""
    taps = config.options.resample_filter
    if config.encoder_type == "skip":
        down = Conv(image_channels, image_channels, 0, "down", taps)
        return {layer_name(side, "aux_down"): down, layer_name(side, "aux_skip"): Conv(image_channels, channels, 1)}
    if config.encoder_type == "residual":
        return {layer_name(side, "aux_residual"): Conv(image_channels, channels, 3, "down", taps, late=True)}
    return {}


def decoder(config: SongUNetConfig, skips: list[int]) -> nn.ModuleDict:
    """The layers from the lowest resolution up, each of which takes one skip connection, the last first."""
    layers, options, (lowest, channels), left = nn.ModuleDict(), config.options, config.levels[-1], list(skips)
    layers[layer_name(lowest, "in0")] = Block(channels, channels, options, attention=True)
    layers[layer_name(lowest, "in1")] = Block(channels, channels, options)
    for side, outputs in reversed(config.levels):
        if side != lowest:
            layers[layer_name(side, "up")] = Block(channels, channels, options, "up")
        for i in range(config.num_blocks + 1):
            inputs, attention = channels + left.pop(), i == config.num_blocks and side in config.attn_resolutions
            layers[layer_name(side, f"block{i}")] = Block(inputs, outputs, options, attention=attention)
            channels = outputs
        if config.decoder_type == "skip" and side != lowest:
            layers[layer_name(side, "aux_up")] = Conv(config.outputs, config.outputs, 0, "up", options.resample_filter)
        if config.decoder_type == "skip" or side == config.levels[0][0]:
            layers[layer_name(side, "aux_norm")] = norm(channels, options.eps)
            layers[layer_name(side, "aux_conv")] = Conv(channels, config.outputs, 3, zero=True)
    return layers


def songunet(
    shape: tuple[int, ...],
    classes: int,
    *,
    model_channels: ModelChannels = 64,
    channel_mult: ChannelMult = None,
    num_blocks: NumBlocks = 2,
    attn_resolutions: AttnResolutions = None,
    embedding_type: Annotated[
        str, Option("embedding of the noise level", choices=("positional", "fourier"))
    ] = "positional",
    channel_mult_noise: Annotated[
        int, Option("sines and cosines of the noise level, in multiples of model_channels", at_least(1))
    ] = 1,
    encoder_type: Annotated[
        str, Option("how the image enters at lower resolutions", choices=("standard", "skip", "residual"))
    ] = "standard",
    decoder_type: Annotated[
        str, Option("how the image leaves: skip at every resolution", choices=("standard", "skip"))
    ] = "standard",
    resample_filter: Annotated[
        tuple[float, ...], Option("weights of the filter along an axis where the resolution changes")
    ] = (1.0, 1.0),
    channel_mult_emb: Annotated[
        int, Option("numbers of the embedding, in multiples of model_channels", at_least(1))
    ] = 4,
    dropout: Dropout = 0.0,
    augment_dim: AugmentDim = 0,
    target_dim: TargetDim = 0,
    learn_variance: LearnVariance = False,
) -> SongUNet:
    """DDPM++ or NCSN++ as EDM has them, for images whose sides are multiples of ``2^(levels - 1)``.

    Paper: Karras et al. 2022, arXiv 2206.00364, table 7; Song et al. 2021, arXiv 2011.13456, appendix H.
    Use: for CIFAR-10 and other images of 32 to 64 pixels; the published networks have ``model_channels`` 128 and
    ``num_blocks`` 4.

    The decoder has one block more than the encoder at each resolution. Attention is at 16 pixels and below when left
    out. NCSN++ has ``embedding_type`` "fourier", ``encoder_type`` "residual", ``channel_mult_noise`` 2 and
    ``resample_filter`` 1, 3, 3, 1.
    """
    if model_channels * channel_mult_noise % 2:
        raise UsageError(
            "songunet needs an even number of sines and cosines of the noise level",
            "take a backbone.model_channels that is a multiple of 32",
        )
    channel_mult = tuple(channel_mult or default_channel_mult(*shape[1:]))
    sides = resolutions("songunet", shape, len(channel_mult))
    attended = tuple(n for n in sides if n <= 16) if attn_resolutions is None else tuple(attn_resolutions)
    embedding, taps = channel_mult_emb * model_channels, tuple(resample_filter)
    options = BlockOptions(embedding, dropout, False, True, math.sqrt(0.5), 1e-6, None, taps)
    levels = tuple((side, model_channels * mult) for side, mult in zip(sides, channel_mult, strict=True))
    outputs = shape[0] * (2 if learn_variance else 1)
    conditions = classes, augment_dim, target_dim, model_channels * channel_mult_noise
    stack = levels, num_blocks, attended, model_channels, embedding_type, encoder_type, decoder_type
    return SongUNet(SongUNetConfig(shape[0], outputs, *conditions, *stack, options))
