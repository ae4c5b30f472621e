"""Options that several networks have, each declared once with its help and its check, and their defaults."""

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
    "default_channel_mult",
    "resolutions",
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


def default_channel_mult(side: int) -> tuple[int, ...]:
    """1, 2, 2, ...: a resolution for every halving that leaves at least 4 positions a side, 5 at the most."""
    levels = 1
    while side % 2 == 0 and side // 2 >= 4 and levels < 5:
        side, levels = side // 2, levels + 1
    return (1, *[2] * (levels - 1))


def resolutions(name: str, shape: tuple[int, ...], levels: int, patch_size: int = 1) -> tuple[int, ...]:
    """The side of the feature maps of each of ``levels`` resolutions, the finest first, for images (C, H, W).

    UsageError, in which the network is called ``name``, when the image is no square or cannot be halved so often.
    """
    if len(shape) != 3 or shape[1] != shape[2]:
        raise UsageError(
            f"{name} needs square images, and these are {'x'.join(map(str, shape))}",
            Hint("try {}", Setting("backbone", "mlp")),
        )
    side, multiple = shape[1], patch_size * 2 ** (levels - 1)
    if side % multiple:
        patches = f" and patches of {patch_size}" if patch_size > 1 else ""
        raise UsageError(
            f"{name} with {levels} levels{patches} needs a side that is a multiple of {multiple}, and {side} is not",
            f"resize the images to {max(side // multiple, 1) * multiple}, or set backbone.channel_mult=[1,2]",
        )
    return tuple(side // patch_size >> level for level in range(levels))
