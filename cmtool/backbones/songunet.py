"""DDPM++ and NCSN++ as EDM trained them, under the names of EDM's weights.

DDPM++ is what stands here without options; NCSN++ has ``embedding`` "fourier", ``encoder`` "residual", ``waves`` 2 and
``taps`` 1, 3, 3, 1. Source: Karras et al. 2022, arXiv 2206.00364, table 7; Song et al. 2021, arXiv 2011.13456, app. H.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cmtool.backbones.edm_blocks import Block, BlockOptions, Conv, layer_name, norm, one_hot, resolutions
from cmtool.backbones.unet import default_channel_mult
from cmtool.errors import UsageError, unknown_name

__all__ = ["SongUNet", "songunet"]

EMBEDDINGS = ("positional", "fourier")
ENCODERS = ("standard", "skip", "residual")
DECODERS = ("standard", "skip")


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
    """``levels`` are (side, channels), the finest first; ``attention`` holds the sides that have it."""

    channels: int
    outputs: int
    classes: int
    augment_dim: int
    target_dim: int
    width: int
    waves: int
    levels: tuple[tuple[int, int], ...]
    blocks: int
    attention: tuple[int, ...]
    embedding: str
    encoder: str
    decoder: str
    style: BlockOptions


class SongUNet(nn.Module):
    """``net(x [B, C, H, W], c_noise [B], labels [B] or None, augment_labels, target) -> [B, C, H, W]``.

    ``augment_labels`` [B, augment_dim] and ``target`` [B, target_dim] may be None.

    Beside the blocks goes, with the encoders "skip" and "residual", the image at lower sides, and with the decoder
    "skip", the sum of images made at each side.
    """

    def __init__(self, plan: SongUNetConfig):
        super().__init__()
        self.plan, wide = plan, plan.waves * plan.width
        self.map_noise = (Fourier if plan.embedding == "fourier" else Positional)(wide // 2)
        self.map_label = nn.Linear(plan.classes, wide) if plan.classes else None
        self.map_augment = nn.Linear(plan.augment_dim, wide, bias=False) if plan.augment_dim else None
        self.map_target = nn.Linear(plan.target_dim, wide, bias=False) if plan.target_dim else None
        self.map_layer0 = nn.Linear(wide, plan.style.embedding)
        self.map_layer1 = nn.Linear(plan.style.embedding, plan.style.embedding)
        self.enc, across = encoder(plan)
        self.dec = decoder(plan, across)

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
        return self._up(self._down(x, embedding), embedding)

    def embed(
        self,
        c_noise: Tensor,
        labels: Tensor | None,
        augment_labels: Tensor | None = None,
        target: Tensor | None = None,
    ) -> Tensor:
        """Noise level, class and what else there is, [B, embedding]; one-hot classes are brought to mean square 1."""
        angles = self.map_noise(c_noise)
        embedding = torch.cat([angles.sin(), angles.cos()], 1)
        if self.map_label is not None:
            rows = one_hot(labels, c_noise, self.plan.classes)
            embedding = embedding + self.map_label(rows * math.sqrt(self.plan.classes))
        if self.map_augment is not None and augment_labels is not None:
            embedding = embedding + self.map_augment(augment_labels)
        if self.map_target is not None and target is not None:
            embedding = embedding + self.map_target(target)
        return F.silu(self.map_layer1(F.silu(self.map_layer0(embedding))))

    def _down(self, x: Tensor, embedding: Tensor) -> list[Tensor]:
        """What goes across; the last of it is also what goes up."""
        beside, across = x, []
        for name, layer in self.enc.items():
            match name.partition("_")[2]:
                case "aux_down":
                    beside = layer(beside)
                case "aux_skip":
                    across.append(across.pop() + layer(beside))
                case "aux_residual":
                    beside = (across.pop() + layer(beside)) * math.sqrt(0.5)
                    across.append(beside)
                case "conv":
                    across.append(layer(x))
                case _:
                    across.append(layer(across[-1], embedding))
        return across

    def _up(self, across: list[Tensor], embedding: Tensor) -> Tensor:
        x, image = across[-1], None
        for name, layer in self.dec.items():
            match name.partition("_")[2]:
                case "aux_up":
                    image = layer(image)
                case "aux_norm":
                    seen = F.silu(layer(x))
                case "aux_conv":
                    image = layer(seen) if image is None else image + layer(seen)
                case _:
                    x = layer(torch.cat([x, across.pop()], 1) if "block" in name else x, embedding)
        assert image is not None
        return image


def encoder(plan: SongUNetConfig) -> tuple[nn.ModuleDict, list[int]]:
    """The way down, and how many channels each of its layers hands across."""
    layers, here, beside = nn.ModuleDict(), plan.width, plan.channels
    across = [here]
    layers[layer_name(plan.levels[0][0], "conv")] = Conv(plan.channels, here, 3)
    for level, (side, outputs) in enumerate(plan.levels):
        if level:
            layers[layer_name(side, "down")] = Block(here, here, plan.style, "down")
            layers.update(beside_down(plan, side, here, beside))
            beside = here if plan.encoder == "residual" else beside
            across.append(here)
        for i in range(plan.blocks):
            layers[layer_name(side, f"block{i}")] = Block(here, outputs, plan.style, attention=side in plan.attention)
            here = outputs
            across.append(here)
    return layers, across


def beside_down(plan: SongUNetConfig, side: int, here: int, beside: int) -> dict[str, nn.Module]:
    """How the image itself reaches a lower side, and the main path there."""
    taps = plan.style.taps
    if plan.encoder == "skip":
        down = Conv(beside, beside, 0, "down", taps)
        return {layer_name(side, "aux_down"): down, layer_name(side, "aux_skip"): Conv(beside, here, 1)}
    if plan.encoder == "residual":
        return {layer_name(side, "aux_residual"): Conv(beside, here, 3, "down", taps, late=True)}
    return {}


def decoder(plan: SongUNetConfig, across: list[int]) -> nn.ModuleDict:
    """The way up, which takes what came across, the last of it first."""
    layers, (lowest, here), left = nn.ModuleDict(), plan.levels[-1], list(across)
    layers[layer_name(lowest, "in0")] = Block(here, here, plan.style, attention=True)
    layers[layer_name(lowest, "in1")] = Block(here, here, plan.style)
    for side, outputs in reversed(plan.levels):
        if side != lowest:
            layers[layer_name(side, "up")] = Block(here, here, plan.style, "up")
        for i in range(plan.blocks + 1):
            looks = i == plan.blocks and side in plan.attention
            layers[layer_name(side, f"block{i}")] = Block(here + left.pop(), outputs, plan.style, attention=looks)
            here = outputs
        if plan.decoder == "skip" and side != lowest:
            layers[layer_name(side, "aux_up")] = Conv(plan.outputs, plan.outputs, 0, "up", plan.style.taps)
        if plan.decoder == "skip" or side == plan.levels[0][0]:
            layers[layer_name(side, "aux_norm")] = norm(here, plan.style.eps)
            layers[layer_name(side, "aux_conv")] = Conv(here, plan.outputs, 3, zero=True)
    return layers


def songunet(
    shape: tuple[int, ...],
    classes: int,
    *,
    model_channels: int = 64,
    channel_mult: tuple[int, ...] | None = None,
    num_blocks: int = 2,
    attention: tuple[int, ...] | None = None,
    embedding: str = "positional",
    waves: int = 1,
    encoder: str = "standard",
    decoder: str = "standard",
    taps: tuple[float, ...] = (1.0, 1.0),
    channel_mult_emb: int = 4,
    dropout: float = 0.0,
    augment_dim: int = 0,
    target_dim: int = 0,
    learn_variance: bool = False,
) -> nn.Module:
    """DDPM++ or NCSN++ for square images ``shape`` = (C, H, W) whose side is a multiple of ``2^(levels - 1)``.

    ``width`` channels times ``mults`` at each level, with ``blocks`` blocks down and one more up; ``attention`` lists
    the sides that have it, 16 and fewer when left out. The noise level enters as ``waves width`` sines and cosines by
    the ``embedding`` "positional" or "fourier", and becomes ``channel_mult_emb width`` numbers. The ``encoder`` is
    "standard", "skip" or "residual", the ``decoder`` "standard" or "skip"; images are resized by a filter of ``taps``.
    ``augment_dim`` numbers may say how a training image was augmented, ``target_dim`` where a step of a flow map ends;
    ``learn_variance`` doubles the outputs, of which the first half is returned. The published networks have width 128
    and 4 blocks.
    """
    for word, given, words in (
        ("embedding", embedding, EMBEDDINGS),
        ("encoder", encoder, ENCODERS),
        ("decoder", decoder, DECODERS),
    ):
        if given not in words:
            raise unknown_name(word, given, words)
    if model_channels * waves % 2:
        raise UsageError(
            "songunet needs an even number of waves", "take a backbone.model_channels that is a multiple of 32"
        )
    channel_mult = tuple(channel_mult or default_channel_mult(shape[-1]))
    all_sides = resolutions("songunet", shape, len(channel_mult))
    attention = tuple(side for side in all_sides if side <= 16) if attention is None else tuple(attention)
    style = BlockOptions(
        channel_mult_emb * model_channels, dropout, False, True, math.sqrt(0.5), 1e-6, None, tuple(taps)
    )
    levels = tuple((side, model_channels * mult) for side, mult in zip(all_sides, channel_mult, strict=True))
    outputs = shape[0] * (2 if learn_variance else 1)
    told = (classes, augment_dim, target_dim, model_channels, waves)
    return SongUNet(
        SongUNetConfig(shape[0], outputs, *told, levels, num_blocks, attention, embedding, encoder, decoder, style)
    )
