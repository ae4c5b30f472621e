"""The networks that OpenAI published: what their tensors tell of the architecture, and what they do not.

Architectures are known by their tensors, whatever the file is called. Whether a network was trained as a score model or
as a consistency model shows nowhere but in the name.
Source: the launch scripts of consistency_models and guided-diffusion.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from cmtool.errors import BadFile
from cmtool.formats.common import whole_network

__all__ = ["ARCHITECTURES", "FILES", "NAMES", "ADMShape", "HiddenOptions", "PublishedFile", "read_adm_shape"]


NAMES = (  # in every network of the family, and together in no other
    "time_embed.0.weight",
    "input_blocks.0.0.weight",
    "middle_block.1.qkv.weight",
)

WAYS = ("output", "input")


@dataclass(frozen=True)
class ADMShape:
    """``backbone`` holds the options that the tensors settle; ``guided`` is whether guided-diffusion wrote them.

    Which levels have attention is in the tensors, at what resolutions only with the side of the images.
    """

    backbone: dict[str, Any]
    attention_levels: tuple[int, ...]
    channels: int
    outputs: int
    classes: int
    guided: bool

    @property
    def layers(self) -> tuple[Any, ...]:
        """What tells the published networks apart."""
        width, blocks, mults = (self.backbone[key] for key in ("model_channels", "num_blocks", "channel_mult"))
        return (self.guided, width, blocks, tuple(mults), self.attention_levels)

    def attn_resolutions(self, side: int) -> list[int]:
        """The resolutions with attention, of images with this side."""
        return [side >> level for level in self.attention_levels]


def read_adm_shape(path: Path, tensors: Mapping[str, Tensor]) -> ADMShape:
    """Width, levels, blocks and classes, from names and shapes; BadFile where they make no network."""
    if not any(name.startswith(f"{WAYS[0]}_blocks.") for name in tensors):
        raise BadFile(
            f"{path} holds a network without a way up, as a classifier is", "cmtool reads networks that make images"
        )
    with whole_network(path, "ADM network"):
        return _read_architecture(tensors)


def _read_architecture(tensors: Mapping[str, Tensor]) -> ADMShape:
    def size(name: str, axis: int = 0) -> int:
        return tensors[name].shape[axis]

    width, channels = size("time_embed.0.weight", 1), size("input_blocks.0.0.weight", 1)
    outputs, axes = size("out.2.weight"), tensors["middle_block.1.qkv.weight"].ndim - 2
    blocks, levels, updown, conv_resample = _stack(tensors)
    firsts = [1 + level * (blocks + 1) for level in range(levels)]
    mults = [size(f"input_blocks.{i}.0.in_layers.2.weight") / width for i in firsts]
    doubled = size("input_blocks.1.0.emb_layers.1.weight") == 2 * size("input_blocks.1.0.in_layers.2.weight")
    backbone = {
        "name": "adm",
        "model_channels": width,
        "channel_mult": [int(mult) if mult == int(mult) else mult for mult in mults],
        "num_blocks": blocks,
        "use_scale_shift_norm": doubled,
        "resblock_updown": updown,
        "learn_variance": outputs == 2 * channels,
        **({} if conv_resample else {"conv_resample": False}),
        **({"qkv": "flash"} if axes == 2 else {}),
    }
    classes = size("label_emb.weight") if "label_emb.weight" in tensors else 0
    attention = tuple(level for level, i in enumerate(firsts) if f"input_blocks.{i}.1.qkv.weight" in tensors)
    return ADMShape(backbone, attention, channels, outputs, classes, guided=axes == 1)


def _stack(tensors: Mapping[str, Tensor]) -> tuple[int, int, bool, bool]:
    """Blocks of a level, levels, whether residual blocks resize, and whether convolutions do where they do not.

    In the decoder, a level ends where one upsamples. Where nothing that resizes has weights, numbers are left out in
    the encoder.
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


@dataclass(frozen=True)
class HiddenOptions:
    """The side of the images, options of the backbone, and the schedule of guided-diffusion."""

    side: int | None = None
    backbone: dict[str, Any] = field(default_factory=dict)
    schedule: str | None = None


@dataclass(frozen=True)
class PublishedFile:
    """``ts`` are the indices, in the Karras schedule of ``steps`` sigmas, that its authors sampled best with."""

    data: str
    kind: str = "score"
    steps: int = 0
    ts: tuple[int, ...] = ()


WIDE = {"num_head_channels": 64}
COUNTED = {"num_heads": 4, "num_heads_upsample": 4}
LEGACY = {**WIDE, "qkv": "legacy"}

# By: is it guided-diffusion's, width, blocks of a level, mults, levels with attention.
ARCHITECTURES: dict[tuple[Any, ...], HiddenOptions] = {
    (False, 192, 3, (1, 2, 3, 4), (1, 2, 3)): HiddenOptions(64, WIDE),
    (False, 256, 2, (1, 1, 2, 2, 4, 4), (3, 4, 5)): HiddenOptions(256, WIDE),
    (True, 192, 3, (1, 2, 3, 4), (1, 2, 3)): HiddenOptions(64, {**WIDE, "qkv": "new"}, "cosine"),
    (True, 256, 2, (1, 1, 2, 3, 4), (2, 3, 4)): HiddenOptions(128, {**COUNTED, "qkv": "legacy"}, "linear"),
    (True, 256, 2, (1, 1, 2, 2, 4, 4), (3, 4, 5)): HiddenOptions(256, LEGACY, "linear"),
    (True, 256, 2, (0.5, 1, 1, 2, 2, 4, 4), (4, 5, 6)): HiddenOptions(512, LEGACY, "linear"),
}

FILES = {
    "edm_imagenet64_ema": PublishedFile("imagenet64"),
    "cd_imagenet64_l2": PublishedFile("imagenet64", "consistency", 40, (22,)),
    "cd_imagenet64_lpips": PublishedFile("imagenet64", "consistency", 40, (22,)),
    "ct_imagenet64": PublishedFile("imagenet64", "consistency", 201, (106,)),
    "edm_bedroom256_ema": PublishedFile("bedroom256"),
    "cd_bedroom256_l2": PublishedFile("bedroom256", "consistency", 40, (18,)),
    "cd_bedroom256_lpips": PublishedFile("bedroom256", "consistency", 40, (17,)),
    "ct_bedroom256": PublishedFile("bedroom256", "consistency", 151, (67,)),
    "edm_cat256_ema": PublishedFile("cat256"),
    "cd_cat256_l2": PublishedFile("cat256", "consistency"),
    "cd_cat256_lpips": PublishedFile("cat256", "consistency"),
    "ct_cat256": PublishedFile("cat256", "consistency", 151, (62,)),
    "64x64_diffusion": PublishedFile("imagenet64"),
    "128x128_diffusion": PublishedFile("imagenet128"),
    "256x256_diffusion": PublishedFile("imagenet256"),
    "256x256_diffusion_uncond": PublishedFile("imagenet256"),
    "512x512_diffusion": PublishedFile("imagenet512"),
    "lsun_bedroom": PublishedFile("bedroom256"),
    "lsun_cat": PublishedFile("cat256"),
    "lsun_horse": PublishedFile("horse256"),
    "lsun_horse_nodropout": PublishedFile("horse256"),
}
