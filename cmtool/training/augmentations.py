"""Ways to change an image, each drawn at random and described by one or two numbers that are 0 when nothing is done.

A change is a function ``(draws, strength, ...) -> (what is done, augment labels)``. Those of ``PIXELS`` move whole
pixels and return images; those of ``PLANE`` return the inverse of a map of the plane, [B, 3, 3], counted in pixels from
the centre; those of ``COLOUR`` a map of (red, green, blue, 1), [B, 4, 4].
Source: Karras et al. 2022, arXiv 2206.00364, appendix F.2; Karras et al. 2020, arXiv 2006.06676, appendix B.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from cmtool.training.affine import matrix, rotation, scaling, translation

__all__ = ["COLOUR", "PIXELS", "PLANE", "Draws", "ImageChange", "Spread"]

AugmentLabels = list[Tensor]


@dataclass(frozen=True)
class Spread:
    """How far the changes of a kind go: standard deviations, and the ends of uniform draws.

    Moves are in parts of the side; scale, stretch, contrast and saturation in powers of two; 1 is a full circle.
    """

    translate_int_max: float = 0.125
    scale_std: float = 0.2
    rotate_frac_max: float = 1.0
    aniso_std: float = 0.2
    aniso_rotate_prob: float = 0.5
    translate_frac_std: float = 0.125
    brightness_std: float = 0.2
    contrast_std: float = 0.5
    hue_max: float = 1.0
    saturation_std: float = 1.0


class Draws:
    """Columns of uniform numbers [B, n], taken one by one and turned into what is asked for."""

    def __init__(self, u: Tensor, p: float, spread: Spread):
        self.columns, self.p, self.spread = iter(u.unbind(1)), p, spread

    def uniform(self) -> Tensor:
        return next(self.columns)

    def signed(self) -> Tensor:
        return 2 * self.uniform() - 1

    def normal(self) -> Tensor:
        return torch.special.ndtri(self.uniform())

    def whole(self, n: int) -> Tensor:
        return (self.uniform() * n).floor().clamp(max=n - 1)

    def choose(self, strength: float, *values: Tensor) -> AugmentLabels:
        """The values with probability p times ``strength``, else 0."""
        chosen = self.uniform() < strength * self.p
        return [torch.where(chosen, value, torch.zeros_like(value)) for value in values]


@dataclass(frozen=True)
class ImageChange:
    """How many uniform numbers a change takes, how many augment labels it gives, and what it does."""

    draws: int
    labels: int
    make: Callable[..., tuple[Tensor, AugmentLabels]]


def where(chosen: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Image by image."""
    return torch.where(chosen[:, None, None, None], a, b)


def flip(axis: int) -> Callable[..., tuple[Tensor, AugmentLabels]]:
    def make(draws: Draws, strength: float, images: Tensor) -> tuple[Tensor, AugmentLabels]:
        (w,) = draws.choose(strength, draws.whole(2))
        return where(w == 1, images.flip(axis), images), [w]

    return make


def quarter_turns(draws: Draws, strength: float, images: Tensor) -> tuple[Tensor, AugmentLabels]:
    (w,) = draws.choose(strength, draws.whole(4))
    across, down = (w == 1) | (w == 2), (w == 2) | (w == 3)
    images = where(across, images.flip(3), images)
    images = where(down, images.flip(2), images)
    return where((w == 1) | (w == 3), images.transpose(2, 3), images), [across, down]


def move_pixels(draws: Draws, strength: float, images: Tensor) -> tuple[Tensor, AugmentLabels]:
    """By whole pixels to the right and up; mirrored at the edges."""
    h, w = images.shape[2:]
    across, along = w * draws.spread.translate_int_max, h * draws.spread.translate_int_max
    right, up = draws.choose(strength, draws.signed(), draws.signed())
    right, up = (right * across).round(), (up * along).round()
    x = w - 1 - (w - 1 - (torch.arange(w) - right[:, None]) % (2 * w - 2)).abs()
    y = h - 1 - (h - 1 - (torch.arange(h) + up[:, None]) % (2 * h - 2)).abs()
    rows = torch.arange(len(images))[:, None, None]
    moved = images.movedim(1, 3)[rows, y.long()[:, :, None], x.long()[:, None, :]].movedim(3, 1)
    return moved, [right / across, up / along]


def scale(draws: Draws, strength: float, h: int, w: int) -> tuple[Tensor, AugmentLabels]:
    """By ``2^N(0, scale_std^2)``."""
    (by,) = draws.choose(strength, draws.normal())
    factor = (-draws.spread.scale_std * by).exp2()
    return scaling(factor, factor), [by]


def rotate(draws: Draws, strength: float, h: int, w: int) -> tuple[Tensor, AugmentLabels]:
    (angle,) = draws.choose(strength, math.pi * draws.spread.rotate_frac_max * draws.signed())
    return rotation(angle), [angle.cos() - 1, angle.sin()]


def stretch(draws: Draws, strength: float, h: int, w: int) -> tuple[Tensor, AugmentLabels]:
    """By ``2^N(0, aniso_std^2)`` along one axis and its inverse along the other; some of the axes are turned."""
    by, angle = draws.normal(), math.pi * draws.signed()
    (by,) = draws.choose(strength, by)
    turned = draws.uniform() < draws.spread.aniso_rotate_prob
    turned &= by != 0  # else the turns there and back would leave rounding errors
    angle = torch.where(turned, angle, torch.zeros_like(angle))
    factor = (draws.spread.aniso_std * by).exp2()
    return rotation(-angle) @ scaling(1 / factor, factor) @ rotation(angle), [by * angle.cos(), by * angle.sin()]


def move(draws: Draws, strength: float, h: int, w: int) -> tuple[Tensor, AugmentLabels]:
    """By ``N(0, (translate_frac_std side)^2)``."""
    right, down = draws.choose(strength, draws.normal(), draws.normal())
    std = draws.spread.translate_frac_std
    return translation(-right * w * std, -down * h * std), [right, down]


def brightness(draws: Draws, strength: float) -> tuple[Tensor, AugmentLabels]:
    (by,) = draws.choose(strength, draws.normal())
    b = draws.spread.brightness_std * by
    return matrix((1, 0, 0, b), (0, 1, 0, b), (0, 0, 1, b), (0, 0, 0, 1)), [by]


def contrast(draws: Draws, strength: float) -> tuple[Tensor, AugmentLabels]:
    (by,) = draws.choose(strength, draws.normal())
    c = (draws.spread.contrast_std * by).exp2()
    return matrix((c, 0, 0, 0), (0, c, 0, 0), (0, 0, c, 0), (0, 0, 0, 1)), [by]


def along_grey(grey: Tensor, rest: Tensor | float) -> Tensor:
    """Greys times ``grey``, and what is orthogonal to them times ``rest``, [B, 4, 4]."""
    off = (grey - rest) / 3
    on = off + rest
    return matrix((on, off, off, 0), (off, on, off, 0), (off, off, on, 0), (0, 0, 0, 1))


def negative(draws: Draws, strength: float) -> tuple[Tensor, AugmentLabels]:
    """Light becomes dark while the hue stays."""
    (by,) = draws.choose(strength, draws.whole(2))
    return along_grey(1 - 2 * by, 1.0), [by]


def hue(draws: Draws, strength: float) -> tuple[Tensor, AugmentLabels]:
    """A rotation about the greys."""
    (angle,) = draws.choose(strength, math.pi * draws.spread.hue_max * draws.signed())
    c, s = angle.cos(), angle.sin() / math.sqrt(3)
    m = (1 - c) / 3
    turned = matrix((m + c, m - s, m + s, 0), (m + s, m + c, m - s, 0), (m - s, m + s, m + c, 0), (0, 0, 0, 1))
    return turned, [angle.cos() - 1, angle.sin()]


def saturation(draws: Draws, strength: float) -> tuple[Tensor, AugmentLabels]:
    (by,) = draws.choose(strength, draws.normal())
    return along_grey(torch.ones_like(by), (draws.spread.saturation_std * by).exp2()), [by]


PIXELS: dict[str, ImageChange] = {
    "xflip": ImageChange(2, 1, flip(3)),
    "yflip": ImageChange(2, 1, flip(2)),
    "rotate_int": ImageChange(2, 2, quarter_turns),
    "translate_int": ImageChange(3, 2, move_pixels),
}
PLANE: dict[str, ImageChange] = {
    "scale": ImageChange(2, 1, scale),
    "rotate_frac": ImageChange(2, 2, rotate),
    "aniso": ImageChange(4, 2, stretch),
    "translate_frac": ImageChange(3, 2, move),
}
COLOUR: dict[str, ImageChange] = {
    "brightness": ImageChange(2, 1, brightness),
    "contrast": ImageChange(2, 1, contrast),
    "lumaflip": ImageChange(2, 1, negative),
    "hue": ImageChange(2, 2, hue),
    "saturation": ImageChange(2, 1, saturation),
}
