"""Pictures in a terminal: a character is two pixels, one above the other."""

import math
import os
import shutil
import sys

import numpy as np
from PIL import Image

from cmtool.files.pictures import grid, scatter

__all__ = ["drawn", "shown"]

UPPER, LOWER, BOTH, NONE = "▀", "▄", "█", " "
ROWS, NARROW, WIDE = 4, 18, 80
BAYER = np.array([[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]])  # ordered dithering, in sixteenths


def shown(images: np.ndarray) -> str:
    """The first few images uint8 [N, C, H, W], or points [N, 2], as lines that fit standard error.

    In colour where that is a terminal that has it (and NO_COLOR is not set), else in black and white.
    """
    colour = sys.stderr is not None and sys.stderr.isatty() and "NO_COLOR" not in os.environ
    width = shutil.get_terminal_size((WIDE, 24)).columns if colour else WIDE
    if images.ndim == 2:
        return drawn(_resized(scatter(images), width / 2 - 1), colour)
    columns = min(max(width // NARROW, 2), 8, len(images))
    side = (width - 1) // columns - 1
    small = [_resized(image, side) for image in images[: columns * ROWS]]
    return drawn(grid(np.stack(small), columns, gap=1, scale=1), colour)


def drawn(picture: np.ndarray, colour: bool) -> str:
    """uint8 [C, H, W] as half blocks, with ANSI colours of 24 bits or dithered without any."""
    picture = np.pad(picture, ((0, 0), (0, picture.shape[1] % 2), (0, 0)), constant_values=255)
    if not colour:
        bright = picture.mean(axis=0)
        tiles = [math.ceil(size / 4) for size in bright.shape]
        on = bright > (np.tile(BAYER, tiles)[: bright.shape[0], : bright.shape[1]] + 0.5) * 16
        signs = np.array([NONE, LOWER, UPPER, BOTH])
        return "\n".join("".join(line) for line in signs[on[::2] * 2 + on[1::2] * 1])
    rgb = np.broadcast_to(picture, (3, *picture.shape[1:])).transpose(1, 2, 0)
    return "\n".join("".join(map(_cell, *pair)) + "\033[0m" for pair in zip(rgb[::2], rgb[1::2], strict=True))


def _cell(upper: np.ndarray, lower: np.ndarray) -> str:
    front, back = (";".join(map(str, pixel)) for pixel in (upper, lower))
    return f"\033[38;2;{front}m\033[48;2;{back}m{UPPER}"


def _resized(image: np.ndarray, side: float) -> np.ndarray:
    """[C, H, W] no wider or higher than ``side``, by averaging."""
    factor = min(1.0, side / max(image.shape[1:]))
    size = [max(1, int(length * factor)) for length in (image.shape[2], image.shape[1])]
    return np.stack([np.asarray(Image.fromarray(plane).resize(size, Image.Resampling.BOX)) for plane in image])
