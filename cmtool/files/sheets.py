"""Sheets that explain themselves: pictures in rows and columns with words above and below them."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cmtool.pictures import with_channels

__all__ = ["Cell", "labelled"]

SIDE, GAP, TEXT, INK = 112, 10, 14, (40, 40, 40)  # pixels; a cell is at least as wide as its words need

Cell = tuple[np.ndarray | None, Sequence[str]]  # an image uint8 [C, H, W], or none, and the lines below it


def labelled(headings: Sequence[str], rows: Sequence[Sequence[Cell]], title: str = "") -> np.ndarray:
    """A page uint8 [3, H, W]: a heading above each column, every image in a cell, and its lines below it.

    Images smaller than a cell are enlarged by repeating pixels, larger ones are made smaller.
    """
    page_font, small = ImageFont.load_default(TEXT), ImageFont.load_default(TEXT - 2)
    lines = [line for row in rows for _, texts in row for line in texts]
    widths = [page_font.getlength(text) for text in headings] + [small.getlength(text) for text in lines]
    wide = max(SIDE, int(max(widths, default=0)) + 4)
    below = max((len(texts) for row in rows for _, texts in row), default=0) * (TEXT + 2)
    top, high = GAP + (TEXT + 10 if title else 0) + TEXT + 8, SIDE + 4 + below + GAP
    size = max(len(headings) * (wide + GAP) + GAP, int(page_font.getlength(title)) + 2 * GAP)
    page = Image.new("RGB", (size, top + len(rows) * high), "white")
    pen = ImageDraw.Draw(page)
    pen.text((GAP, GAP), title, INK, page_font)
    for i, heading in enumerate(headings):
        pen.text((GAP + i * (wide + GAP) + wide / 2, top - 8), heading, INK, page_font, anchor="ms")
    for j, row in enumerate(rows):
        for i, (image, texts) in enumerate(row):
            left, upper = GAP + i * (wide + GAP), top + j * high
            if image is not None:
                shown = _fitted(image)
                page.paste(shown, (left + (wide - shown.width) // 2, upper + (SIDE - shown.height) // 2))
            for k, text in enumerate(texts):
                pen.text((left + wide / 2, upper + SIDE + 4 + k * (TEXT + 2)), text, INK, small, anchor="mt")
    return np.asarray(page).transpose(2, 0, 1)


def _fitted(image: np.ndarray) -> Image.Image:
    picture = Image.fromarray(np.ascontiguousarray(with_channels(image, 3).transpose(1, 2, 0)))
    longest = max(picture.size)
    if longest > SIDE:
        return picture.resize([max(1, round(n * SIDE / longest)) for n in picture.size], Image.Resampling.LANCZOS)
    return picture.resize([n * (SIDE // longest) for n in picture.size], Image.Resampling.NEAREST)
