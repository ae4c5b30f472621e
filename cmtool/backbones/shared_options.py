"""Options that several networks have, each declared once with its help and its check, and their defaults."""

from collections.abc import Sequence
from typing import Annotated

from cmtool.errors import Hint, Setting, UsageError
from cmtool.options.plugin_option import Option
from cmtool.options.types import Check, at_least, positive

__all__ = [
    "AttnResolutions",
    "AugmentDim",
    "ChannelMult",
    "Dropout",
    "FractionalChannelMult",
    "LearnVariance",
    "ModelChannels",
    "NumBlocks",
    "NumHeadChannels",
    "PatchSize",
    "TargetDim",
    "count_levels",
    "default_channel_mult",
    "resolutions",
    "shorter_side",
]

WIDEST = 1 << 20

ModelChannels = Annotated[
    int, Option("channels at the finest resolution, where channel_mult is 1", at_least(1, WIDEST))
]
ChannelMult = Annotated[
    tuple[int, ...] | None,
    Option("channels at each resolution, in multiples of model_channels, the finest first", at_least(1, WIDEST)),
]
FractionalChannelMult = Annotated[
    tuple[float, ...] | None,
    Option("channels at each resolution, in multiples of model_channels, the finest first", positive()),
]
NumBlocks = Annotated[int, Option("residual blocks at each resolution", at_least(1, 1000))]
AttnResolutions = Annotated[
    tuple[int, ...] | None,
    Option("sides of the feature maps that have self-attention, in pixels, or in patches where patch_size is above 1"),
]
NumHeadChannels = Annotated[int, Option("channels of an attention head", at_least(1, WIDEST))]
PatchSize = Annotated[int, Option("side of the patches that an image is cut into, in pixels", at_least(1, 1 << 14))]
Dropout = Annotated[
    float,
    Option("probability that an activation is dropped in training", Check(lambda p: 0 <= p < 1, "from 0 to below 1")),
]
AugmentDim = Annotated[int, Option("augment labels that it takes of a training image; 0 for none", at_least(0, WIDEST))]
TargetDim = Annotated[
    int,
    Option("numbers that it takes of the noise level where a flow map's step ends; 0 for none", at_least(0, WIDEST)),
]
LearnVariance = Annotated[bool, Option("outputs for a variance beside the image, which are not returned")]


def default_channel_mult(*sides: int) -> tuple[int, ...]:
    """1, 2, 2, ...: a resolution for every halving that leaves at least 4 positions a side, 5 at the most."""
    return (1, *[2] * (count_levels(sides, 5) - 1))


def count_levels(sides: Sequence[int], most: int) -> int:
    """How many resolutions there are while every side is halved to 4 positions or more."""
    levels = 1
    while all(side % 2 == 0 and side // 2 >= 4 for side in sides) and levels < most:
        sides, levels = [side // 2 for side in sides], levels + 1
    return levels


def shorter_side(shape: tuple[int, ...]) -> int:
    """That of images (C, H, W), by which networks choose their levels and where attention is."""
    return min(shape[1:], default=1)


def resolutions(name: str, shape: tuple[int, ...], levels: int, patch_size: int = 1) -> tuple[int, ...]:
    """The shorter side of the feature maps of each of ``levels`` resolutions, the finest first, for images (C, H, W).

    UsageError, in which the network is called ``name``, when these are no images or cannot be halved so often.
    """
    if len(shape) != 3:
        raise UsageError(
            f"{name} needs images, and these are {'x'.join(map(str, shape))}",
            Hint("try {}", Setting("backbone", "mlp")),
        )
    multiple = patch_size * 2 ** (levels - 1)
    wrong = [side for side in shape[1:] if side % multiple]
    if wrong:
        patches = f" and patches of {patch_size}" if patch_size > 1 else ""
        sides = [max(side // multiple, 1) * multiple for side in shape[1:]]
        better = str(sides[0]) if sides[0] == sides[1] else "x".join(map(str, sides))
        raise UsageError(
            f"{name} with {levels} levels{patches} needs sides that are multiples of {multiple}, and {wrong[0]} is not",
            f"resize the images to {better}, or set backbone.channel_mult=[1,2]",
        )
    return tuple(shorter_side(shape) // patch_size >> level for level in range(levels))
