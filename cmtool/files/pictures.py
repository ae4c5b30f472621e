"""Single pictures: what is edited, masks, and the sheets that are looked at."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cmtool.errors import UsageError
from cmtool.files.atomic import write_bytes, writing
from cmtool.files.images import STREAM, stdin, stdout
from cmtool.files.places import mark
from cmtool.pictures import decode, encode, planes

__all__ = ["check_target", "grid", "read_picture", "scatter", "write_picture"]

READABLE = 64  # pixels that the side of an image on a sheet should have at least
PAPER = 255
LINE = 12  # pixels of a line of text


def read_picture(target: str | Path) -> np.ndarray:
    """A picture as uint8 [C, H, W], C 1 (grey) or 3; ``-`` is standard input. MissingInput; BadFile for no picture."""
    if str(target) == STREAM:
        return planes(decode(stdin(), "standard input"))
    return planes(decode(Path(target)))


def check_target(target: str | Path) -> None:
    """UsageError for a place no picture is written to; to be asked before hours are spent on the picture."""
    if str(target) == STREAM:
        stdout()
    elif Path(target).suffix.lower() != ".png":
        raise UsageError(f"cannot write a picture to {target}", "pictures are written as .png, or to - for a pipe")
    elif Path(target).is_dir():
        raise UsageError(f"cannot write a picture to {target}, which is a folder", "name a file in it")


def write_picture(target: str | Path, image: Any, command: str = "") -> None:
    """Write uint8 [C, H, W] as a PNG that says which ``command`` made it; ``-`` is standard output.

    UsageError for another suffix; WriteFailed.
    """
    check_target(target)
    data = mark(encode(np.asarray(image)), command)
    if str(target) == STREAM:
        with writing("standard output"):
            stdout().write(data)
            stdout().flush()
    else:
        write_bytes(target, data)


def grid(
    images: np.ndarray,
    columns: int | None = None,
    gap: int = 2,
    scale: int | None = None,
    names: Sequence[str] | None = None,
) -> np.ndarray:
    """A sheet, uint8 [C, H', W'], of images uint8 [N, C, H, W], row by row; about square without ``columns``.

    Every image is enlarged ``scale`` times by repeating its pixels; without it, until its shorter side has 64 pixels.
    ``gap`` is the width in pixels of the white lines between and around the images; ``names`` stand above them.
    """
    images = np.asarray(images)
    n, channels, height, width = images.shape
    columns = columns or math.ceil(math.sqrt(n))
    rows = -(-n // columns)
    scale = scale or max(1, round(READABLE / min(height, width)))
    above = LINE if names else 0
    high, wide = height * scale + gap + above, width * scale + gap
    sheet = np.full((channels, rows * high + gap, columns * wide + gap), PAPER, dtype=np.uint8)
    for i, image in enumerate(images):
        top, left = i // columns * high + gap, i % columns * wide + gap
        if names:
            sheet[:, top : top + above, left : left + wide - gap] = written(names[i], wide - gap, above)
        enlarged = image.repeat(scale, axis=1).repeat(scale, axis=2)
        sheet[:, top + above : top + high - gap, left : left + wide - gap] = enlarged
    return sheet


def written(text: str, width: int, height: int) -> np.ndarray:
    """Black on white, uint8 [height, width]; what does not fit is cut off."""
    line = Image.new("L", (width, height), PAPER)
    ImageDraw.Draw(line).text((0, 0), text, fill=0, font=ImageFont.load_default())
    return np.asarray(line)


def scatter(points: np.ndarray, extent: float | None = None, side: int = 384) -> np.ndarray:
    """A picture, uint8 [3, side, side], of points float [N, 2]: x to the right, y upwards, origin in the middle.

    It shows [-extent, extent]^2, or all points. A point is a disc of 2 pixels radius that covers part of what is below:
    ``c(k) = ink + (paper - ink) (1 - a)^k`` where k discs overlap, ``a`` smaller the more points there are.
    """
    points = np.asarray(points, dtype=np.float64)
    extent = extent or 1.05 * float(np.abs(points).max(initial=1e-9))
    pixels = np.floor((points * [1, -1] / extent + 1) / 2 * side).astype(int)
    count = np.zeros((side, side))
    for dy, dx in DISC:
        x, y = pixels[:, 0] + dx, pixels[:, 1] + dy
        inside = (x >= 0) & (x < side) & (y >= 0) & (y < side)
        np.add.at(count, (y[inside], x[inside]), 1)
    kept = (1 - min(0.8, max(0.15, 100 / (len(points) + 1)))) ** count
    return np.rint(INK[:, None, None] + (PAPER - INK)[:, None, None] * kept).astype(np.uint8)


INK = np.array([24, 60, 140])
DISC = [(dy, dx) for dy in range(-2, 3) for dx in range(-2, 3) if dx * dx + dy * dy <= 5]
