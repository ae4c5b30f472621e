"""NCSN++, DDPM++ and DDPM as score_sde trained them, under the names of its weights.

The output of score_sde's VE networks is divided by sigma; cmtool leaves that to the preconditioning, which would
multiply it back. Source: Song et al. 2021, arXiv 2011.13456, appendix H.
"""

import math
from collections.abc import Callable, Iterator
from typing import Annotated

import torch
from torch import Tensor, nn

from cmtool.backbones.ncsnpp_blocks import (
    MEAN,
    NONLINEARITIES,
    Attention,
    Block,
    BlockOptions,
    Fourier,
    conv,
    linear,
    resample,
)
from cmtool.backbones.ncsnpp_config import NCSNppConfig, Stack
from cmtool.backbones.shared_options import AttnResolutions, ChannelMult, Dropout, ModelChannels, NumBlocks
from cmtool.errors import UsageError
from cmtool.options.plugin_option import Option
from cmtool.options.types import Check

__all__ = ["NCSNpp", "ddpm", "ddpmpp", "ncsnpp", "sinusoidal_embedding"]

Nonlinearity = Annotated[str, Option("nonlinearity of all layers", choices=tuple(NONLINEARITIES))]
NoiseConditional = Annotated[bool, Option("the network takes the noise level and the class")]


class NCSNpp(nn.Module):
    """``net(x [B, C, H, W], c_noise [B], labels [B] or None) -> [B, C, H, W]``.

    The modules stand in one list, in the order in which they are used. Where the image enters at lower resolutions by
    a filter alone, that is no member of it. The published networks know no classes.
    """

    def __init__(self, config: NCSNppConfig):
        super().__init__()
        stack, embedding = config.stack, config.options.embedding
        self.config, fourier, width = config, config.embedding_type == "fourier", stack.model_channels
        parts: list[nn.Module] = [Fourier(width, config.fourier_scale)] if fourier else []
        if config.noise_conditional:
            parts += [linear((1 + fourier) * width, embedding), linear(embedding, embedding)]
        parts.append(conv(stack.channels, width))
        image_channels, channels, skips = stack.channels, width, [width]
        for level in config.levels:
            for _ in range(stack.num_blocks):
                parts += config.block(channels, level) + config.attention(level)
                channels = config.channels_at(level)
                skips.append(channels)
            if level < config.levels[-1]:
                parts += [config.down(channels), *config.image_input(image_channels, channels)]
                doubles = config.encoder_type == "skip" and config.combine == "cat"
                image_channels, channels = channels, channels * (2 if doubles else 1)
                skips.append(channels)
        parts += [
            Block(channels, channels, config.options),
            Attention(channels, config.options),
            Block(channels, channels, config.options),
        ]
        for level in reversed(config.levels):
            for _ in range(stack.num_blocks + 1):
                parts += config.block(channels + skips.pop(), level)
                channels = config.channels_at(level)
            parts += config.attention(level)
            if config.decoder_type == "skip":
                parts += config.output(channels)
            if level:
                parts.append(config.up(channels))
        if config.decoder_type == "standard":
            parts += config.output(channels)
        self.all_modules = nn.ModuleList(parts)
        self.label = nn.Embedding(config.classes, embedding) if config.classes else None

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        parts = iter(self.all_modules)
        embedding = self._embed(parts, c_noise, labels)
        embedding = None if embedding is None else self.config.options.act(embedding)
        h, skips = self._encode(parts, x, embedding)
        for _ in range(3):
            h = run_block(parts, h, embedding)
        return self._decode(parts, h, skips, embedding)

    def _embed(self, parts: Iterator[nn.Module], c_noise: Tensor, labels: Tensor | None) -> Tensor | None:
        """Noise level and class, [B, 4 model_channels]; None in a network that takes neither."""
        fourier = self.config.embedding_type == "fourier"
        waves = next(parts)(c_noise) if fourier else sinusoidal_embedding(c_noise, self.config.stack.model_channels)
        if not self.config.noise_conditional:
            return None
        embedding = next(parts)(waves)
        embedding = next(parts)(self.config.options.act(embedding))
        if labels is None or self.label is None:
            return embedding
        return embedding + self.label(labels.clamp(min=0)) * (labels >= 0)[:, None]

    def _encode(self, parts: Iterator[nn.Module], x: Tensor, embedding: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """The features at the lowest resolution, and the skip connections."""
        config, image, h = self.config, x, next(parts)(x)
        skips = [h]
        for level in config.levels:
            for _ in range(config.stack.num_blocks):
                h = run_block(parts, h, embedding)
                if config.has_attention(level):
                    h = run_block(parts, h, embedding)
                skips.append(h)
            if level < config.levels[-1]:
                h = run_block(parts, h, embedding)
                if config.encoder_type == "skip":
                    image = resample(image, "down", config.options.taps)
                    h = next(parts)(image, h)
                elif config.encoder_type == "residual":
                    h = image = config.options.add_skip(next(parts)(image), h)
                skips.append(h)
        return h, skips

    def _decode(self, parts: Iterator[nn.Module], h: Tensor, skips: list[Tensor], embedding: Tensor | None) -> Tensor:
        """The output; with the decoder type "skip" it is the sum of the images that every resolution makes."""
        config, image = self.config, torch.zeros((), dtype=h.dtype, device=h.device)
        act = config.options.act
        for level in reversed(config.levels):
            for _ in range(config.stack.num_blocks + 1):
                h = run_block(parts, torch.cat([h, skips.pop()], 1), embedding)
            if config.has_attention(level):
                h = run_block(parts, h, embedding)
            if config.decoder_type == "skip":
                image = resample(image, "up", config.options.taps) if level < config.levels[-1] else image
                image = image + run_output(parts, h, act)
            if level:
                h = run_block(parts, h, embedding)
        return image if config.decoder_type == "skip" else run_output(parts, h, act)


def run_block(parts: Iterator[nn.Module], h: Tensor, embedding: Tensor | None) -> Tensor:
    """The next module; only residual blocks take the embedding."""
    part = next(parts)
    return part(h, embedding) if isinstance(part, Block) else part(h)


def run_output(parts: Iterator[nn.Module], h: Tensor, act: Callable[[Tensor], Tensor]) -> Tensor:
    """The next two modules, which make an image."""
    h = act(next(parts)(h))
    return next(parts)(h)


def sinusoidal_embedding(c: Tensor, dim: int) -> Tensor:
    """``(sin w_i c, cos w_i c)`` with ``w_i = 10000^(-i / (n - 1))``, i = 0 .. n - 1, n = dim / 2, [B] -> [B, dim].

    Source: Ho et al. 2020, arXiv 2006.11239, appendix B, sines first and with the lowest frequency.
    """
    n = dim // 2
    steps = torch.arange(n, dtype=torch.float32, device=c.device) * (-math.log(10_000) / (n - 1))
    angle = c[:, None] * steps.exp().to(c)
    return torch.cat([angle.sin(), angle.cos()], 1)


def symmetric(taps: tuple[float, ...]) -> bool:
    return len(taps) > 0 and len(taps) % 2 == 0 and taps == taps[::-1]


def ncsnpp(
    shape: tuple[int, ...],
    classes: int,
    *,
    model_channels: ModelChannels = 64,
    channel_mult: ChannelMult = None,
    num_blocks: NumBlocks = 2,
    attn_resolutions: AttnResolutions = None,
    embedding_type: Annotated[
        str, Option("embedding of the noise level", choices=("fourier", "positional"))
    ] = "fourier",
    fourier_scale: Annotated[float, Option("standard deviation of the frequencies of Fourier features")] = 16.0,
    encoder_type: Annotated[
        str, Option("how the image enters at lower resolutions", choices=("standard", "skip", "residual"))
    ] = "residual",
    decoder_type: Annotated[
        str, Option("how the image leaves: skip at every resolution", choices=("standard", "skip"))
    ] = "standard",
    combine: Annotated[
        str, Option("how the encoder type skip joins image and features", choices=("sum", "cat"))
    ] = "sum",
    resample_filter: Annotated[
        tuple[float, ...],
        Option(
            "weights of the filter along an axis where the resolution changes; 1, 1 for means and repetition",
            Check(symmetric, "an even number of weights that read alike from both ends"),
        ),
    ] = (1.0, 3.0, 3.0, 1.0),
    skip_rescale: Annotated[bool, Option("sums with a skip connection are divided by sqrt 2")] = True,
    nonlinearity: Nonlinearity = "swish",
    noise_conditional: NoiseConditional = True,
    dropout: Dropout = 0.0,
) -> NCSNpp:
    """NCSN++ as score_sde has it, for images whose sides are multiples of ``2^(levels - 1)``.

    Paper: Song et al. 2021, arXiv 2011.13456, appendix H.
    Use: to read and to continue networks of score_sde; the published ones have ``model_channels`` 128 and
    ``num_blocks`` 4.

    The decoder has one block more than the encoder at each resolution. Attention is at 16 pixels when left out.
    """
    check(classes, noise_conditional)
    options = BlockOptions(
        4 * model_channels, dropout, skip_rescale, 4, tuple(resample_filter), nonlinearity=nonlinearity
    )
    stack = Stack.of("ncsnpp", shape, model_channels, channel_mult, num_blocks, attn_resolutions)
    ways = embedding_type, fourier_scale, encoder_type, decoder_type, combine
    return NCSNpp(NCSNppConfig(stack, classes, options, *ways, noise_conditional))


def check(classes: int, noise_conditional: bool) -> None:
    """UsageError for classes that a network would ignore."""
    if classes and not noise_conditional:
        raise UsageError(
            "a network that is not noise_conditional takes no classes", "set backbone.noise_conditional=true"
        )


def ddpmpp(
    shape: tuple[int, ...],
    classes: int,
    *,
    model_channels: ModelChannels = 64,
    channel_mult: ChannelMult = None,
    num_blocks: NumBlocks = 2,
    attn_resolutions: AttnResolutions = None,
    dropout: Dropout = 0.0,
) -> NCSNpp:
    """DDPM++ as score_sde has it: ``ncsnpp`` with a positional embedding and without the image at lower resolutions.

    Paper: Song et al. 2021, arXiv 2011.13456, appendix H.
    Use: for score models of VP and sub-VP; resolutions change by means and repetition.
    """
    options = BlockOptions(4 * model_channels, dropout, True, 4, MEAN)
    stack = Stack.of("ddpmpp", shape, model_channels, channel_mult, num_blocks, attn_resolutions)
    return NCSNpp(NCSNppConfig(stack, classes, options))


def ddpm(
    shape: tuple[int, ...],
    classes: int,
    *,
    model_channels: ModelChannels = 64,
    channel_mult: ChannelMult = None,
    num_blocks: NumBlocks = 2,
    attn_resolutions: AttnResolutions = None,
    nonlinearity: Nonlinearity = "swish",
    noise_conditional: NoiseConditional = True,
    conv_resample: Annotated[
        bool, Option("convolutions change the resolution, instead of means and repetition alone")
    ] = True,
    dropout: Dropout = 0.0,
) -> NCSNpp:
    """The U-Net of DDPM: sums with skip connections are not rescaled, and all norms have 32 groups.

    Paper: Ho et al. 2020, arXiv 2006.11239, appendix B; as in Song et al. 2021, arXiv 2011.13456.
    Use: to read networks of DDPM and of score_sde; for new ones ``ddpmpp`` is better.
    """
    check(classes, noise_conditional)
    options = BlockOptions(4 * model_channels, dropout, False, 1, MEAN, True, nonlinearity, conv_resample)
    stack = Stack.of("ddpm", shape, model_channels, channel_mult, num_blocks, attn_resolutions)
    return NCSNpp(NCSNppConfig(stack, classes, options, noise_conditional=noise_conditional))
