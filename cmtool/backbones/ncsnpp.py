"""NCSN++, DDPM++ and DDPM as score_sde trained them, under the names of its weights.

What the files of score_sde call the output is divided by sigma in its VE networks; here that is left to the
preconditioning, which would multiply it back. Source: Song et al. 2021, arXiv 2011.13456, appendix H.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

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
from cmtool.backbones.ncsnpp_config import CHOICES, NCSNppConfig, make_config
from cmtool.errors import UsageError, unknown_name

__all__ = ["NCSNpp", "ddpm", "ddpmpp", "ncsnpp", "sinusoidal_embedding"]


class NCSNpp(nn.Module):
    """``net(x [B, C, H, W], c_noise [B], labels [B] or None) -> [B, C, H, W]``.

    The modules stand in one list, in the order in which they are used. What resizes the image beside the blocks by
    the filter alone is no member of it. The published networks know no classes.
    """

    def __init__(self, plan: NCSNppConfig):
        super().__init__()
        self.plan, wide = plan, plan.style.embedding
        fourier = plan.embedding == "fourier"
        parts: list[nn.Module] = [Fourier(plan.width, plan.fourier)] if fourier else []
        if plan.conditional:
            parts += [linear((1 + fourier) * plan.width, wide), linear(wide, wide)]
        parts.append(conv(plan.channels, plan.width))
        beside, here, across = plan.channels, plan.width, [plan.width]
        for level, mult in enumerate(plan.mults):
            for _ in range(plan.blocks):
                parts += plan.block(here, level) + plan.look(level)
                here = plan.width * mult
                across.append(here)
            if level < plan.last:
                parts += [plan.down(here), *plan.beside(beside, here)]
                beside, here = here, here * (2 if plan.encoder == "skip" and plan.combine == "cat" else 1)
                across.append(here)
        parts += [Block(here, here, plan.style), Attention(here, plan.style), Block(here, here, plan.style)]
        for level in reversed(range(plan.last + 1)):
            for _ in range(plan.blocks + 1):
                parts += plan.block(here + across.pop(), level)
                here = plan.width * plan.mults[level]
            parts += plan.look(level)
            if plan.decoder == "skip":
                parts += plan.out(here)
            if level:
                parts.append(plan.up(here))
        if plan.decoder == "standard":
            parts += plan.out(here)
        self.all_modules = nn.ModuleList(parts)
        self.label = nn.Embedding(plan.classes, wide) if plan.classes else None

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        parts = iter(self.all_modules)
        embedding = self._told(parts, c_noise, labels)
        embedding = None if embedding is None else self.plan.style.act(embedding)
        h, across = self._entered(parts, x, embedding)
        for _ in range(3):
            h = run_block(parts, h, embedding)
        return self._left(parts, h, across, embedding)

    def _told(self, parts: Iterator[nn.Module], c_noise: Tensor, labels: Tensor | None) -> Tensor | None:
        """Level and class, [B, 4 width]; "no class" adds nothing. None in a network that is told neither."""
        fourier = self.plan.embedding == "fourier"
        told = next(parts)(c_noise) if fourier else sinusoidal_embedding(c_noise, self.plan.width)
        if not self.plan.conditional:
            return None
        embedding = next(parts)(told)
        embedding = next(parts)(self.plan.style.act(embedding))
        if labels is None or self.label is None:
            return embedding
        return embedding + self.label(labels.clamp(min=0)) * (labels >= 0)[:, None]

    def _entered(self, parts: Iterator[nn.Module], x: Tensor, embedding: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """Down to the lowest side, with all that was on the way."""
        plan, beside, h = self.plan, x, next(parts)(x)
        across = [h]
        for level in range(plan.last + 1):
            for _ in range(plan.blocks):
                h = run_block(parts, h, embedding)
                if level in plan.attention:
                    h = run_block(parts, h, embedding)
                across.append(h)
            if level < plan.last:
                h = run_block(parts, h, embedding)
                if plan.encoder == "skip":
                    beside = resample(beside, "down", plan.style.taps)
                    h = next(parts)(beside, h)
                elif plan.encoder == "residual":
                    h = beside = plan.style.joined(next(parts)(beside), h)
                across.append(h)
        return h, across

    def _left(self, parts: Iterator[nn.Module], h: Tensor, across: list[Tensor], embedding: Tensor | None) -> Tensor:
        """Back up; with the decoder "skip" the image is the sum of those that every side makes."""
        plan, image = self.plan, torch.zeros((), dtype=h.dtype, device=h.device)
        act = plan.style.act
        for level in reversed(range(plan.last + 1)):
            for _ in range(plan.blocks + 1):
                h = run_block(parts, torch.cat([h, across.pop()], 1), embedding)
            if level in plan.attention:
                h = run_block(parts, h, embedding)
            if plan.decoder == "skip":
                image = resample(image, "up", plan.style.taps) if level < plan.last else image
                image = image + out(parts, h, act)
            if level:
                h = run_block(parts, h, embedding)
        return image if plan.decoder == "skip" else out(parts, h, act)


def run_block(parts: Iterator[nn.Module], h: Tensor, embedding: Tensor | None) -> Tensor:
    """The next module; only residual blocks are told level and class."""
    part = next(parts)
    return part(h, embedding) if isinstance(part, Block) else part(h)


def out(parts: Iterator[nn.Module], h: Tensor, act: Callable[[Tensor], Tensor]) -> Tensor:
    """The next two, which make an image."""
    h = act(next(parts)(h))
    return next(parts)(h)


def sinusoidal_embedding(c: Tensor, width: int) -> Tensor:
    """``(sin w_i c, cos w_i c)`` with ``w_i = 10000^(-i / (n - 1))``, i = 0 .. n - 1, n = width / 2, [B] -> [B, width].

    Source: Ho et al. 2020, arXiv 2006.11239, appendix B, sines first and with the lowest frequency.
    """
    n = width // 2
    steps = torch.arange(n, dtype=torch.float32, device=c.device) * (-math.log(10_000) / (n - 1))
    angle = c[:, None] * steps.exp().to(c)
    return torch.cat([angle.sin(), angle.cos()], 1)


def ncsnpp(
    shape: tuple[int, ...],
    classes: int,
    *,
    model_channels: int = 64,
    channel_mult: tuple[int, ...] | None = None,
    num_blocks: int = 2,
    attention: tuple[int, ...] | None = None,
    embedding: str = "fourier",
    fourier: float = 16.0,
    encoder: str = "residual",
    decoder: str = "standard",
    combine: str = "sum",
    taps: tuple[float, ...] = (1.0, 3.0, 3.0, 1.0),
    rescale: bool = True,
    nonlinearity: str = "swish",
    conditional: bool = True,
    dropout: float = 0.0,
) -> nn.Module:
    """NCSN++ for square images ``shape`` = (C, H, W) whose side is a multiple of ``2^(levels - 1)``.

    ``width`` channels times ``mults`` at each level, with ``blocks`` blocks down and one more up; ``attention`` lists
    the levels that have it, that of side 16 when left out. The noise level enters by the ``embedding`` "fourier", with
    frequencies of scale ``fourier``, or "positional". The image enters each level beside the blocks by the ``encoder``
    "skip", which joins it with ``combine`` "sum" or "cat", or "residual"; with the ``decoder`` "skip" it leaves from
    each. ``taps`` filter where sides change, 1, 1 for means and repetition; ``rescale`` divides sums of two ways by
    sqrt 2. ``nonlinearity`` is "swish", "relu", "lrelu" or "elu"; without ``conditional`` the network is told neither
    noise level nor class. The published networks have width 128 and 4 blocks.
    """
    given: dict[str, Any] = {"embedding": embedding, "encoder": encoder, "decoder": decoder, "combine": combine}
    for word, value in given.items():
        if value not in CHOICES[word]:
            raise unknown_name(word, value, CHOICES[word])
    if len(taps) % 2 or list(taps) != list(taps)[::-1]:
        raise UsageError("backbone.taps are not an even number of weights that read alike from both ends")
    check(classes, nonlinearity, conditional)
    style = BlockOptions(4 * model_channels, dropout, rescale, 4, tuple(taps), nonlinearity=nonlinearity)
    stacked = make_config("ncsnpp", shape, classes, model_channels, channel_mult, num_blocks, attention)
    return NCSNpp(NCSNppConfig(*stacked, style, fourier=fourier, conditional=conditional, **given))


def check(classes: int, nonlinearity: str, conditional: bool) -> None:
    """UsageError for a nonlinearity that is none, and for classes that a network would not be told."""
    if nonlinearity not in NONLINEARITIES:
        raise unknown_name("nonlinearity", nonlinearity, NONLINEARITIES)
    if classes and not conditional:
        raise UsageError("a network that is not conditional cannot be told classes", "set backbone.conditional=true")


def ddpmpp(
    shape: tuple[int, ...],
    classes: int,
    *,
    model_channels: int = 64,
    channel_mult: tuple[int, ...] | None = None,
    num_blocks: int = 2,
    attention: tuple[int, ...] | None = None,
    dropout: float = 0.0,
) -> nn.Module:
    """DDPM++: ``ncsnpp`` with a positional embedding, no image beside the blocks, and means and repetition."""
    style = BlockOptions(4 * model_channels, dropout, True, 4, MEAN)
    return NCSNpp(
        NCSNppConfig(*make_config("ddpmpp", shape, classes, model_channels, channel_mult, num_blocks, attention), style)
    )


def ddpm(
    shape: tuple[int, ...],
    classes: int,
    *,
    model_channels: int = 64,
    channel_mult: tuple[int, ...] | None = None,
    num_blocks: int = 2,
    attention: tuple[int, ...] | None = None,
    nonlinearity: str = "swish",
    conditional: bool = True,
    resample_conv: bool = True,
    dropout: float = 0.0,
) -> nn.Module:
    """The U-Net of DDPM: as ``ddpmpp``, resized by convolutions, sums as they are, norms of 32 groups everywhere.

    Without ``resample_conv`` it is resized by means and repetition alone; ``nonlinearity`` and ``conditional`` are
    those of ``ncsnpp``.
    """
    check(classes, nonlinearity, conditional)
    style = BlockOptions(
        4 * model_channels, dropout, False, 1, MEAN, plain=True, nonlinearity=nonlinearity, resample_conv=resample_conv
    )
    return NCSNpp(
        NCSNppConfig(
            *make_config("ddpm", shape, classes, model_channels, channel_mult, num_blocks, attention),
            style,
            conditional=conditional,
        )
    )
