"""EDM's own variant of ADM, under the names of its weights.

It differs from OpenAI's in the names, in the order of queries, keys and values, and in the way the class enters.
Source: Karras et al. 2022, arXiv 2206.00364, table 7; Dhariwal and Nichol 2021, arXiv 2105.05233.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cmtool.backbones.adm import sinusoidal_embedding
from cmtool.backbones.edm_blocks import Block, BlockOptions, Conv, layer_name, norm, one_hot, resolutions
from cmtool.backbones.unet import default_channel_mult
from cmtool.errors import UsageError

__all__ = ["DhariwalUNet", "dhariwal"]

Levels = tuple[tuple[int, int], ...]


class DhariwalUNet(nn.Module):
    """``net(x [B, C, H, W], c_noise [B], labels [B] or None, augment_labels, target) -> [B, C, H, W]``.

    ``augment_labels`` [B, augment_dim] and ``target`` [B, target_dim] may be None.

    ``levels`` are (side, channels), the finest first; ``attention`` holds the sides that have it.
    """

    def __init__(
        self,
        channels: int,
        outputs: int,
        classes: int,
        conditions: tuple[int, int],
        width: int,
        levels: Levels,
        blocks: int,
        attention: tuple[int, ...],
        style: BlockOptions,
    ):
        super().__init__()
        self.width, self.classes, first = width, classes, levels[0][1]
        augment_dim, target_dim = conditions
        self.map_augment = nn.Linear(augment_dim, width, bias=False) if augment_dim else None
        self.map_target = nn.Linear(target_dim, width, bias=False) if target_dim else None
        self.map_layer0 = nn.Linear(width, style.embedding)
        self.map_layer1 = nn.Linear(style.embedding, style.embedding)
        self.map_label = nn.Linear(classes, style.embedding, bias=False) if classes else None
        self.enc, across = encoder(channels, levels, blocks, attention, style)
        self.dec = decoder(levels, blocks, attention, across, style)
        self.out_norm = norm(first, style.eps)
        self.out_conv = Conv(first, outputs, 3, zero=True)

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
        embedding, across = self.embed(c_noise, labels, augment_labels, target), []
        for name, layer in self.enc.items():
            x = layer(x) if name.endswith("conv") else layer(x, embedding)
            across.append(x)
        for name, layer in self.dec.items():
            x = layer(torch.cat([x, across.pop()], 1) if "block" in name else x, embedding)
        return self.out_conv(F.silu(self.out_norm(x)))

    def embed(
        self,
        c_noise: Tensor,
        labels: Tensor | None,
        augment_labels: Tensor | None = None,
        target: Tensor | None = None,
    ) -> Tensor:
        """Noise level, class and what else there is, [B, 4 width]; "no class" adds nothing."""
        embedding = sinusoidal_embedding(c_noise, self.width)
        if self.map_augment is not None and augment_labels is not None:
            embedding = embedding + self.map_augment(augment_labels)
        if self.map_target is not None and target is not None:
            embedding = embedding + self.map_target(target)
        embedding = self.map_layer1(F.silu(self.map_layer0(embedding)))
        if self.map_label is not None:
            embedding = embedding + self.map_label(one_hot(labels, c_noise, self.classes))
        return F.silu(embedding)


def encoder(
    channels: int, levels: Levels, blocks: int, attention: tuple[int, ...], style: BlockOptions
) -> tuple[nn.ModuleDict, list[int]]:
    """The way down, and how many channels each of its layers hands across."""
    layers, here = nn.ModuleDict(), levels[0][1]
    across = [here]
    layers[layer_name(levels[0][0], "conv")] = Conv(channels, here, 3)
    for level, (side, outputs) in enumerate(levels):
        if level:
            layers[layer_name(side, "down")] = Block(here, here, style, "down")
            across.append(here)
        for i in range(blocks):
            layers[layer_name(side, f"block{i}")] = Block(here, outputs, style, attention=side in attention)
            here = outputs
            across.append(here)
    return layers, across


def decoder(
    levels: Levels, blocks: int, attention: tuple[int, ...], across: list[int], style: BlockOptions
) -> nn.ModuleDict:
    """The way up, which takes what came across, the last of it first."""
    layers, (lowest, here), left = nn.ModuleDict(), levels[-1], list(across)
    layers[layer_name(lowest, "in0")] = Block(here, here, style, attention=True)
    layers[layer_name(lowest, "in1")] = Block(here, here, style)
    for side, outputs in reversed(levels):
        if side != lowest:
            layers[layer_name(side, "up")] = Block(here, here, style, "up")
        for i in range(blocks + 1):
            layers[layer_name(side, f"block{i}")] = Block(
                here + left.pop(), outputs, style, attention=side in attention
            )
            here = outputs
    return layers


def dhariwal(
    shape: tuple[int, ...],
    classes: int,
    *,
    model_channels: int = 64,
    channel_mult: tuple[int, ...] | None = None,
    num_blocks: int = 2,
    attention: tuple[int, ...] | None = None,
    head: int = 64,
    channel_mult_emb: int = 4,
    dropout: float = 0.0,
    augment_dim: int = 0,
    target_dim: int = 0,
    learn_variance: bool = False,
) -> nn.Module:
    """EDM's ADM for square images ``shape`` = (C, H, W) whose side is a multiple of ``2^(levels - 1)``.

    ``width`` channels times ``mults`` at each level, with ``blocks`` blocks down and one more up; ``attention`` lists
    the sides that have it, 32 and fewer when left out, in heads of ``head`` channels: levels narrower than a head have
    none. Level and class become ``channel_mult_emb width`` numbers. ``augment_dim`` numbers may say
    how a training image was augmented, ``target_dim`` where a step of a flow map ends; ``learn_variance`` doubles the
    outputs, of which the first half is returned. The published network, of ImageNet at 64 pixels, has width 192, mults
    1, 2, 3, 4 and 3 blocks.
    """
    if model_channels % 2:
        raise UsageError("dhariwal needs an even width", "take a backbone.model_channels that is a multiple of 32")
    channel_mult = tuple(channel_mult or default_channel_mult(shape[-1]))
    all_sides = resolutions("dhariwal", shape, len(channel_mult))
    attention = tuple(side for side in all_sides if side <= 32) if attention is None else tuple(attention)
    levels = tuple((side, model_channels * mult) for side, mult in zip(all_sides, channel_mult, strict=True))
    uneven = next((n for side, n in levels if side in attention and n >= head and n % (n // head)), None)
    if uneven:
        raise UsageError(f"{uneven} channels cannot be shared by {uneven // head} heads", "set another backbone.head")
    style = BlockOptions(channel_mult_emb * model_channels, dropout, True, False, 1.0, 1e-5, head)
    outputs = shape[0] * (2 if learn_variance else 1)
    conditions = (augment_dim, target_dim)
    return DhariwalUNet(shape[0], outputs, classes, conditions, model_channels, levels, num_blocks, attention, style)
