"""Where diffusers' UNet2DModel keeps each tensor of an ADM network: the same blocks, counted and named in another way.

Attention there has three weights of two axes, where ours is one convolution over thirds.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from cmtool.errors import BadFile

__all__ = ["Stack", "from_diffusers", "layer_names", "to_diffusers"]

Names = Mapping[str, tuple[str, ...]]

ENDS = {
    "time_embed.0": ("time_embedding.linear_1",),
    "time_embed.2": ("time_embedding.linear_2",),
    "label_emb": ("class_embedding",),
    "input_blocks.0.0": ("conv_in",),
    "out.0": ("conv_norm_out",),
    "out.2": ("conv_out",),
}
BLOCK = {
    "in_layers.0": ("norm1",),
    "in_layers.2": ("conv1",),
    "emb_layers.1": ("time_emb_proj",),
    "out_layers.0": ("norm2",),
    "out_layers.3": ("conv2",),
    "skip_connection": ("conv_shortcut",),
}
ATTENTION = {"norm": ("group_norm",), "qkv": ("to_q", "to_k", "to_v"), "proj_out": ("to_out.0",)}
DOWN, UP = {"op": ("conv",)}, {"conv": ("conv",)}  # what resizes where no residual block does


class Stack(NamedTuple):
    """All that the names depend on; ``attention`` lists the levels that have it."""

    levels: int
    blocks: int
    attention: tuple[int, ...]
    updown: bool


def layer_names(stack: Stack) -> dict[str, tuple[str, ...]]:
    """Every layer that may be there under its name in ADM, and the one or three that it is in diffusers."""
    found = dict(ENDS)
    for ours, theirs, layers in (*down_names(stack), *MIDDLE, *up_names(stack)):
        found |= {f"{ours}.{layer}": tuple(f"{theirs}.{name}" for name in names) for layer, names in layers.items()}
    return found


MIDDLE = (
    ("middle_block.0", "mid_block.resnets.0", BLOCK),
    ("middle_block.1", "mid_block.attentions.0", ATTENTION),
    ("middle_block.2", "mid_block.resnets.1", BLOCK),
)


def down_names(stack: Stack) -> Iterator[tuple[str, str, Names]]:
    """ADM counts through all levels, and its first entry is the convolution that begins."""
    for level in range(stack.levels):
        first, theirs = 1 + level * (stack.blocks + 1), f"down_blocks.{level}"
        yield from stage_names(stack, "input_blocks", first, theirs, level, stack.blocks)
        if level < stack.levels - 1:
            resize = BLOCK if stack.updown else DOWN
            yield f"input_blocks.{first + stack.blocks}.0", f"{theirs}.downsamplers.0", resize


def up_names(stack: Stack) -> Iterator[tuple[str, str, Names]]:
    """From the lowest level; ADM's resizing is the last part of a level's last entry."""
    for i, level in enumerate(reversed(range(stack.levels))):
        first, theirs = i * (stack.blocks + 1), f"up_blocks.{i}"
        yield from stage_names(stack, "output_blocks", first, theirs, level, stack.blocks + 1)
        if level:
            part = 2 if level in stack.attention else 1
            resize = BLOCK if stack.updown else UP
            yield f"output_blocks.{first + stack.blocks}.{part}", f"{theirs}.upsamplers.0", resize


def stage_names(
    stack: Stack, ours: str, first: int, theirs: str, level: int, n: int
) -> Iterator[tuple[str, str, Names]]:
    for j in range(n):
        yield f"{ours}.{first + j}.0", f"{theirs}.resnets.{j}", BLOCK
        if level in stack.attention:
            yield f"{ours}.{first + j}.1", f"{theirs}.attentions.{j}", ATTENTION


def to_diffusers(state: Mapping[str, Tensor], names: Names) -> dict[str, Tensor]:
    """ADM's tensors as diffusers keeps them."""
    found = {}
    for name, tensor in state.items():
        layer, _, what = name.rpartition(".")
        tensor = tensor.flatten(1) if flat(names[layer]) and tensor.ndim > 1 else tensor
        parts = tensor.chunk(len(names[layer]))
        found |= {f"{theirs}.{what}": part for theirs, part in zip(names[layer], parts, strict=True)}
    return found


def from_diffusers(path: Path, tensors: Mapping[str, Tensor], names: Names) -> dict[str, Tensor]:
    """The inverse, in memory of its own; BadFile for a tensor that has no place, or fits no other of its layer."""
    found, used = {}, set()
    for layer, theirs in names.items():
        for what in ("weight", "bias"):
            parts = [f"{name}.{what}" for name in theirs]
            if all(part in tensors for part in parts):
                found[f"{layer}.{what}"] = join_parts(path, [tensors[part] for part in parts], flat(theirs))
                used.update(parts)
    left = tensors.keys() - used
    if left:
        raise BadFile(f"{path} does not fit its own network: it has an unknown tensor '{min(left)}'")
    return found


def flat(theirs: tuple[str, ...]) -> bool:
    return ".attentions." in theirs[0]


def join_parts(path: Path, parts: list[Tensor], flat: bool) -> Tensor:
    try:
        whole = torch.cat(parts) if len(parts) > 1 else parts[0].clone()
    except RuntimeError as error:
        raise BadFile(f"{path} has queries, keys and values that do not fit together") from error
    return whole[:, :, None, None] if flat and whole.ndim == 2 else whole
