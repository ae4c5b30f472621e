"""Curves on logarithmic axes as a picture, with nothing but Pillow."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

__all__ = ["curves"]

WIDE, HIGH, LEFT, RIGHT, TOP, BOTTOM = 900, 560, 70, 210, 24, 56
INK, FAINT = (40, 40, 40), (225, 225, 225)
# Eight colours that the colour-blind can tell apart (Okabe and Ito 2008), then the same again with hollow marks.
COLOURS = (
    *((0, 114, 178), (230, 159, 0), (0, 158, 115), (213, 94, 0)),
    *((204, 121, 167), (86, 180, 233), (120, 94, 60), (0, 0, 0)),
)


def curves(lines: Mapping[str, Sequence[tuple[float, float]]], across: str, up: str) -> np.ndarray:
    """A picture uint8 [3, H, W] of named lines of points (x, y), both positive, on logarithmic axes."""
    points = [point for line in lines.values() for point in line]
    spans = [_span([point[axis] for point in points]) for axis in (0, 1)]

    def place(x: float, y: float) -> tuple[float, float]:
        shares = [(math.log(v) - low) / (high - low) for v, (low, high) in zip((x, y), spans, strict=True)]
        return LEFT + shares[0] * (WIDE - LEFT - RIGHT), HIGH - BOTTOM - shares[1] * (HIGH - TOP - BOTTOM)

    page = Image.new("RGB", (WIDE, HIGH), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(15)
    for x in _ticks(*spans[0]):
        here, _ = place(x, math.exp(spans[1][0]))
        pen.line([(here, TOP), (here, HIGH - BOTTOM)], FAINT)
        pen.text((here, HIGH - BOTTOM + 6), f"{x:g}", INK, font, anchor="mt")
    for y in _ticks(*spans[1]):
        _, here = place(math.exp(spans[0][0]), y)
        pen.line([(LEFT, here), (WIDE - RIGHT, here)], FAINT)
        pen.text((LEFT - 8, here), f"{y:g}", INK, font, anchor="rm")
    pen.text(((LEFT + WIDE - RIGHT) / 2, HIGH - 8), across, INK, font, anchor="mb")
    pen.text((LEFT, TOP - 4), up, INK, font, anchor="lb")
    for i, (name, line) in enumerate(lines.items()):
        colour, hollow = COLOURS[i % len(COLOURS)], i >= len(COLOURS)
        at = [place(*point) for point in line]
        pen.line(at, colour, 2, "curve")
        for mark in [*at, (WIDE - RIGHT + 26, TOP + 10 + 24 * i)]:
            box = [mark[0] - 4, mark[1] - 4, mark[0] + 4, mark[1] + 4]
            pen.ellipse(box, "white" if hollow else colour, colour, 2)
        pen.text((WIDE - RIGHT + 38, TOP + 10 + 24 * i), name, INK, font, anchor="lm")
    return np.asarray(page).transpose(2, 0, 1)


def _span(values: Sequence[float]) -> tuple[float, float]:
    """The logarithms of the ends, with some room beyond them."""
    low, high = math.log(min(values)), math.log(max(values))
    room = max(0.04 * (high - low), 0.02)
    return low - room, high + room


def _ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times the powers of ten that lie within."""
    powers = range(math.floor(low / math.log(10)), math.ceil(high / math.log(10)) + 1)
    found = [step * 10.0**power for power in powers for step in (1, 2, 5)]
    return [value for value in found if low <= math.log(value) <= high]
