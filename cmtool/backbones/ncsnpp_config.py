"""How the networks of score_sde are stacked: what stands at which level, and which numbers are possible."""

from dataclasses import dataclass

from torch import nn

from cmtool.backbones.ncsnpp_blocks import (
    MEAN,
    Attention,
    Block,
    BlockOptions,
    Combine,
    Filtered,
    Resize,
    Strided,
    Up,
    conv,
    zero,
)
from cmtool.backbones.unet import default_channel_mult
from cmtool.errors import Hint, Setting, UsageError

__all__ = ["CHOICES", "NCSNppConfig", "make_config"]

CHOICES = {
    "embedding": ("fourier", "positional"),
    "encoder": ("standard", "skip", "residual"),
    "decoder": ("standard", "skip"),
    "combine": ("sum", "cat"),
}


@dataclass(frozen=True)
class NCSNppConfig:
    """``attention`` holds the levels that have it, the finest is 0; ``fourier`` is the scale of the frequencies.

    A network that is not ``conditional`` is not told its noise level; its embedding, and what the blocks would make of
    it, stand in its files all the same.
    """

    channels: int
    classes: int
    width: int
    mults: tuple[int, ...]
    blocks: int
    attention: tuple[int, ...]
    style: BlockOptions
    embedding: str = "positional"
    fourier: float = 16.0
    encoder: str = "standard"
    decoder: str = "standard"
    combine: str = "sum"
    conditional: bool = True

    @property
    def last(self) -> int:
        return len(self.mults) - 1

    def block(self, inputs: int, level: int) -> list[nn.Module]:
        return [Block(inputs, self.width * self.mults[level], self.style)]

    def look(self, level: int) -> list[nn.Module]:
        """Attention, where the level has it."""
        return [Attention(self.width * self.mults[level], self.style)] if level in self.attention else []

    def down(self, channels: int) -> nn.Module:
        if not self.style.plain:
            return Block(channels, channels, self.style, "down")
        return Strided(channels, channels) if self.style.resample_conv else Resize("down", MEAN)

    def up(self, channels: int) -> nn.Module:
        if not self.style.plain:
            return Block(channels, channels, self.style, "up")
        return Up(channels) if self.style.resample_conv else Resize("up", MEAN)

    def beside(self, inputs: int, channels: int) -> list[nn.Module]:
        """What brings the image, beside the blocks, to the next side and in, as far as it has weights."""
        taps = self.style.taps
        if self.encoder == "skip":
            return [Combine(self.channels, channels, self.combine == "cat")]
        if self.encoder == "residual":
            return [Strided(inputs, channels) if taps == MEAN else Filtered(inputs, channels, taps)]
        return []

    def out(self, channels: int) -> list[nn.Module]:
        return [self.style.norm(channels), zero(conv(channels, self.channels))]


def make_config(
    name: str,
    shape: tuple[int, ...],
    classes: int,
    width: int,
    mults: tuple[int, ...] | None,
    blocks: int,
    attention: tuple[int, ...] | None,
) -> tuple[int, int, int, tuple[int, ...], int, tuple[int, ...]]:
    """The first fields of a Plan; UsageError for images or a width that no such network can have."""
    if len(shape) != 3 or shape[1] != shape[2]:
        raise UsageError(
            f"{name} needs square images, and these are {'x'.join(map(str, shape))}",
            Hint("try {}", Setting("backbone", "mlp")),
        )
    channels, side, _ = shape
    mults = tuple(mults or default_channel_mult(side))
    multiple = 2 ** (len(mults) - 1)
    if side % multiple:
        raise UsageError(
            f"{name} with {len(mults)} levels needs a side that is a multiple of {multiple}, and {side} is not",
            "set backbone.channel_mult=[1,2]",
        )
    if width % 2 or width < 4:
        raise UsageError(f"{name} needs an even width, and {width} is not", "take one that is a multiple of 32")
    if attention is None:
        attention = tuple(level for level in range(len(mults)) if side >> level == 16)
    return channels, classes, width, mults, blocks, tuple(attention)
