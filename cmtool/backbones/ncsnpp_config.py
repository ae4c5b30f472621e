"""How the networks of score_sde are stacked: which modules each resolution has, and which numbers are possible."""

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
from cmtool.backbones.shared_options import default_channel_mult, resolutions
from cmtool.errors import UsageError

__all__ = ["NCSNppConfig", "Stack"]


@dataclass(frozen=True)
class Stack:
    """The size of a network; ``resolutions`` are the sides, the finest first.

    What is None follows from the size: ``channel_mult`` 1, 2, 2, ..., attention at 16 pixels.
    """

    channels: int
    model_channels: int
    channel_mult: tuple[int, ...]
    num_blocks: int
    resolutions: tuple[int, ...]
    attn_resolutions: tuple[int, ...]

    @classmethod
    def of(
        cls,
        name: str,
        shape: tuple[int, ...],
        model_channels: int,
        channel_mult: tuple[int, ...] | None,
        num_blocks: int,
        attn_resolutions: tuple[int, ...] | None,
    ) -> "Stack":
        """Of the options of the network ``name``; UsageError for images or channels that no such network can have."""
        channel_mult = tuple(channel_mult or default_channel_mult(*shape[1:]))
        sides = resolutions(name, shape, len(channel_mult))
        if model_channels % 2 or model_channels < 4:
            raise UsageError(
                f"{name} needs an even number of model_channels, and {model_channels} is not",
                "take one that is a multiple of 32",
            )
        attended = (16,) if attn_resolutions is None else tuple(attn_resolutions)
        return cls(shape[0], model_channels, channel_mult, num_blocks, sides, attended)


@dataclass(frozen=True)
class NCSNppConfig:
    """A network; ``fourier_scale`` is the standard deviation of the frequencies.

    A network that is not ``noise_conditional`` ignores its noise level; its embedding, and the layers of the blocks
    that would take it, are in its files all the same.
    """

    stack: Stack
    classes: int
    options: BlockOptions
    embedding_type: str = "positional"
    fourier_scale: float = 16.0
    encoder_type: str = "standard"
    decoder_type: str = "standard"
    combine: str = "sum"
    noise_conditional: bool = True

    @property
    def levels(self) -> range:
        return range(len(self.stack.channel_mult))

    def channels_at(self, level: int) -> int:
        return self.stack.model_channels * self.stack.channel_mult[level]

    def has_attention(self, level: int) -> bool:
        return self.stack.resolutions[level] in self.stack.attn_resolutions

    def block(self, inputs: int, level: int) -> list[nn.Module]:
        return [Block(inputs, self.channels_at(level), self.options)]

    def attention(self, level: int) -> list[nn.Module]:
        """Attention, where the level has it."""
        return [Attention(self.channels_at(level), self.options)] if self.has_attention(level) else []

    def down(self, channels: int) -> nn.Module:
        if not self.options.ddpm:
            return Block(channels, channels, self.options, "down")
        return Strided(channels, channels) if self.options.conv_resample else Resize("down", MEAN)

    def up(self, channels: int) -> nn.Module:
        if not self.options.ddpm:
            return Block(channels, channels, self.options, "up")
        return Up(channels) if self.options.conv_resample else Resize("up", MEAN)

    def image_input(self, inputs: int, channels: int) -> list[nn.Module]:
        """The layer by which the image itself enters at a lower resolution, as far as it has weights."""
        taps = self.options.taps
        if self.encoder_type == "skip":
            return [Combine(self.stack.channels, channels, self.combine == "cat")]
        if self.encoder_type == "residual":
            return [Strided(inputs, channels) if taps == MEAN else Filtered(inputs, channels, taps)]
        return []

    def output(self, channels: int) -> list[nn.Module]:
        return [self.options.norm(channels), zero(conv(channels, self.stack.channels))]
