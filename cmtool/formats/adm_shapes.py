"""What the tensors of an ADM network tell of its architecture."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from cmtool.errors import BadFile

__all__ = ["NAMES", "Shown", "read_off"]

NAMES = (  # in every network of the family, and together in no other
    "time_embed.0.weight",
    "input_blocks.0.0.weight",
    "middle_block.1.qkv.weight",
)

WAYS = ("output", "input")


@dataclass(frozen=True)
class Shown:
    """``backbone`` holds the options that the tensors settle; ``guided`` is whether guided-diffusion wrote them."""

    backbone: dict[str, Any]
    channels: int
    outputs: int
    classes: int
    guided: bool

    @property
    def layers(self) -> tuple[Any, ...]:
        """What tells the published networks apart."""
        stack = (self.backbone[key] for key in ("width", "blocks", "mults", "attention"))
        return (self.guided, *(tuple(value) if isinstance(value, list) else value for value in stack))


def read_off(path: Path, tensors: Mapping[str, Tensor]) -> Shown:
    """Width, levels, blocks and classes, from names and shapes; BadFile where they make no network."""
    if not any(name.startswith(f"{WAYS[0]}_blocks.") for name in tensors):
        raise BadFile(
            f"{path} holds a network without a way up, as a classifier is", "cmtool reads networks that make images"
        )
    try:
        return _read_off(tensors)
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        raise BadFile(f"{path} is no whole ADM network: {error} is not there or has another shape") from error


def _read_off(tensors: Mapping[str, Tensor]) -> Shown:
    def size(name: str, axis: int = 0) -> int:
        return tensors[name].shape[axis]

    width, channels = size("time_embed.0.weight", 1), size("input_blocks.0.0.weight", 1)
    outputs, axes = size("out.2.weight"), tensors["middle_block.1.qkv.weight"].ndim - 2
    blocks, levels, updown, resample_conv = _stack(tensors)
    firsts = [1 + level * (blocks + 1) for level in range(levels)]
    mults = [size(f"input_blocks.{i}.0.in_layers.2.weight") / width for i in firsts]
    doubled = size("input_blocks.1.0.emb_layers.1.weight") == 2 * size("input_blocks.1.0.in_layers.2.weight")
    backbone = {
        "name": "adm",
        "width": width,
        "mults": [int(mult) if mult == int(mult) else mult for mult in mults],
        "blocks": blocks,
        "attention": [level for level, i in enumerate(firsts) if f"input_blocks.{i}.1.qkv.weight" in tensors],
        "scale_shift": doubled,
        "updown": updown,
        "learn_variance": outputs == 2 * channels,
        **({} if resample_conv else {"resample_conv": False}),
        **({"qkv": "flash"} if axes == 2 else {}),
    }
    classes = size("label_emb.weight") if "label_emb.weight" in tensors else 0
    return Shown(backbone, channels, outputs, classes, guided=axes == 1)


def _stack(tensors: Mapping[str, Tensor]) -> tuple[int, int, bool, bool]:
    """Blocks of a level, levels, whether residual blocks resize, and whether convolutions do where they do not.

    On the way up, a level ends where one grows. Where nothing that resizes has weights, places are left out on the way
    down.
    """
    exits, entries = (
        {int(name.split(".")[1]) for name in tensors if name.startswith(f"{way}_blocks.")} for way in WAYS
    )
    grow = {True: "in_layers.0.weight", False: "conv.weight"}
    for updown, end in grow.items():
        found = [i for i in range(len(exits)) if any(f"output_blocks.{i}.{k}.{end}" in tensors for k in (1, 2))]
        if found:
            return found[0], len(exits) // (found[0] + 1), updown, True
    bare = max(entries) + 1 - len(entries)
    return len(exits) // (bare + 1) - 1, bare + 1, not bare, not bare
