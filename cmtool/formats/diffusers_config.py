"""``config.json`` of diffusers' UNet2DModel, and the options of our backbone ``adm`` that mean the same network."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cmtool.errors import BadFile
from cmtool.formats.diffusers_names import Stack

__all__ = ["UNetConfig", "config_of", "parse_config"]

# What every ADM network has, first as it is written and when it is not said.
FIXED: dict[str, tuple[Any, ...]] = {
    "act_fn": ("silu", "swish"),
    "add_attention": (True,),
    "center_input_sample": (False,),
    "class_embed_type": (None,),
    "downsample_padding": (1,),
    "flip_sin_to_cos": (True,),
    "freq_shift": (0,),
    "mid_block_scale_factor": (1,),
    "mid_block_type": ("UNetMidBlock2D",),
    "norm_eps": (1e-5,),
    "norm_num_groups": (32,),
    "time_embedding_dim": (None,),
    "time_embedding_type": ("positional",),
}
# What differs, as it is when it is not said.
DEFAULTS: dict[str, Any] = {
    "sample_size": None,
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
    "block_out_channels": [224, 448, 672, 896],
    "layers_per_block": 2,
    "downsample_type": "conv",
    "upsample_type": "conv",
    "dropout": 0.0,
    "attention_head_dim": 8,
    "attn_norm_num_groups": None,
    "resnet_time_scale_shift": "default",
    "num_class_embeds": None,
}
SHIFT = {"default": False, "scale_shift": True}
DOWN = {"conv": "DownBlock2D", "resnet": "ResnetDownsampleBlock2D"}
UP = {"conv": "UpBlock2D", "resnet": "ResnetUpsampleBlock2D"}


@dataclass(frozen=True)
class UNetConfig:
    """A network as its ``config.json`` describes it; ``side`` is that of its images, where it says.

    It lists the levels with attention, whose resolutions are an option once the side is known.
    """

    backbone: dict[str, Any]
    attention_levels: tuple[int, ...]
    channels: int
    classes: int
    side: int | None

    @property
    def stack(self) -> Stack:
        spec = self.backbone
        return Stack(len(spec["channel_mult"]), spec["num_blocks"], self.attention_levels, spec["resblock_updown"])

    def at(self, side: int) -> "UNetConfig":
        """The same for images with this side."""
        resolutions = [side >> level for level in self.attention_levels]
        return replace(self, backbone=self.backbone | {"attn_resolutions": resolutions})


def parse_config(path: Path, config: Mapping[str, Any]) -> UNetConfig:
    """The network of a ``config.json`` at ``path``; BadFile names what our backbone has no counterpart for."""
    said = {key: config.get(key, default) for key, default in DEFAULTS.items()}
    for key, meant in FIXED.items():
        if config.get(key, meant[0]) not in meant:
            raise no_counterpart(path, key, config[key])
    widths = [
        positive_integer(path, "block_out_channels", width) for width in read_list(path, said, "block_out_channels")
    ]
    attention, updown = stack_levels(path, said, len(widths))
    backbone = {
        "name": "adm",
        "model_channels": widths[0],
        "channel_mult": [width // widths[0] if width % widths[0] == 0 else width / widths[0] for width in widths],
        "num_blocks": positive_integer(path, "layers_per_block", said["layers_per_block"]),
        **attention_heads(path, said),
        "qkv": "flash",
        "use_scale_shift_norm": scale_shift(path, said),
        "resblock_updown": updown,
        **({"dropout": fraction(path, "dropout", said["dropout"])} if said["dropout"] else {}),
    }
    channels, classes = positive_integer(path, "in_channels", said["in_channels"]), said["num_class_embeds"]
    if said["out_channels"] != channels:
        raise no_counterpart(path, "out_channels", said["out_channels"])
    classes = 0 if classes is None else positive_integer(path, "num_class_embeds", classes)
    return UNetConfig(backbone, tuple(attention), channels, classes, side(path, said))


def stack_levels(path: Path, said: Mapping[str, Any], n: int) -> tuple[list[int], bool]:
    """The levels with attention, the same on both ways, and whether residual blocks resize, everywhere or nowhere."""
    down, up = read_list(path, said, "down_block_types"), read_list(path, said, "up_block_types")[::-1]
    for key in ("downsample_type", "upsample_type"):
        if said[key] not in list(DOWN):
            raise no_counterpart(path, key, said[key])
    ways = {"AttnDownBlock2D": str(said["downsample_type"]), "AttnUpBlock2D": str(said["upsample_type"])}
    ways |= {name: way for names in (DOWN, UP) for way, name in names.items()}
    attention = [i for i, name in enumerate(down) if name == "AttnDownBlock2D"]
    resize = {ways.get(str(name)) for name in (*down[:-1], *up[1:])}
    names = {"AttnDownBlock2D", *DOWN.values()}, {"AttnUpBlock2D", *UP.values()}
    for key, found, known in zip(("down_block_types", "up_block_types"), (down, up), names, strict=True):
        if len(found) != n or {str(name) for name in found} - known:
            raise no_counterpart(path, key, said[key])
    if attention != [i for i, name in enumerate(up) if name == "AttnUpBlock2D"] or len(resize - {None}) > 1:
        raise no_counterpart(path, "up_block_types", said["up_block_types"])
    return attention, resize != {"conv"}


def attention_heads(path: Path, said: Mapping[str, Any]) -> dict[str, int]:
    if said["attention_head_dim"] is None:
        return {"num_heads": 1}
    return {"num_head_channels": positive_integer(path, "attention_head_dim", said["attention_head_dim"])}


def scale_shift(path: Path, said: Mapping[str, Any]) -> bool:
    """With it, the attention in the middle is normalised only where the number of groups is given."""
    key, groups = said["resnet_time_scale_shift"], said["attn_norm_num_groups"]
    if key not in list(SHIFT):
        raise no_counterpart(path, "resnet_time_scale_shift", key)
    if groups not in ((32,) if SHIFT[key] else (32, None)):
        raise no_counterpart(path, "attn_norm_num_groups", groups)
    return SHIFT[key]


def side(path: Path, said: Mapping[str, Any]) -> int | None:
    size = said["sample_size"]
    if isinstance(size, list) and len(size) == 2 and size[0] == size[1]:
        size = size[0]
    return None if size is None else positive_integer(path, "sample_size", size)


def read_list(path: Path, said: Mapping[str, Any], key: str) -> list[Any]:
    if not isinstance(said[key], list) or not said[key]:
        raise no_counterpart(path, key, said[key])
    return said[key]


def positive_integer(path: Path, key: str, value: Any) -> int:
    if type(value) is not int or not 0 < value < 2**31:
        raise no_counterpart(path, key, value)
    return value


def fraction(path: Path, key: str, value: Any) -> float:
    if not isinstance(value, int | float) or not 0 <= value < 1:
        raise no_counterpart(path, key, value)
    return float(value)


def no_counterpart(path: Path, key: str, value: Any) -> BadFile:
    return BadFile(
        f"{path} has {key}={str(value)[:60]}, for which the network 'adm' has no counterpart",
        "cmtool reads UNet2DModel as it was converted from OpenAI's networks",
    )


def config_of(backbone: Mapping[str, Any], channels: int, classes: int, side: int) -> dict[str, Any]:
    """The inverse of ``parse_config``.

    ``backbone`` holds every option, and ``num_head_channels`` for the heads unless it is one.
    """
    width, way = backbone["model_channels"], "resnet" if backbone["resblock_updown"] else "conv"
    attended = [side >> level in backbone["attn_resolutions"] for level in range(len(backbone["channel_mult"]))]
    config = {
        "sample_size": side,
        "in_channels": channels,
        "out_channels": channels,
        "down_block_types": ["AttnDownBlock2D" if has else DOWN[way] for has in attended],
        "up_block_types": ["AttnUpBlock2D" if has else UP[way] for has in reversed(attended)],
        "block_out_channels": [int(mult * width) for mult in backbone["channel_mult"]],
        "layers_per_block": backbone["num_blocks"],
        "downsample_type": way,
        "upsample_type": way,
        "dropout": backbone["dropout"],
        "attention_head_dim": backbone["num_head_channels"],
        "attn_norm_num_groups": 32,
        "resnet_time_scale_shift": "scale_shift" if backbone["use_scale_shift_norm"] else "default",
        "num_class_embeds": classes or None,
    }
    return {"_class_name": "UNet2DModel", **{key: meant[0] for key, meant in FIXED.items()}, **config}
