"""The first images of a run, for the sheet and, as characters of two pixels each, for the terminal."""

import math
import os
import shutil
import sys
from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cmtool.files.picture_files import grid, scatter

__all__ = ["Gallery", "draw_picture", "render", "sheet"]


class Gallery:
    """The images of ``seeds``, kept as they are made; ``make`` makes those that were not."""

    def __init__(self, seeds: Sequence[int], make: Callable[[list[int]], Tensor]):
        self.seeds, self.make = list(seeds), make
        self.found: dict[int, Tensor] = {}

    def add(self, seeds: Sequence[int], images: Tensor) -> None:
        lacking = set(self.seeds) - self.found.keys()
        for seed, image in zip(seeds, images, strict=True):
            if seed in lacking:
                self.found[seed] = image.clone()  # not the whole batch

    def images(self) -> Tensor:
        """In the order of ``seeds``; what an earlier run wrote is made once more."""
        absent = [seed for seed in self.seeds if seed not in self.found]
        if absent:
            self.add(absent, self.make(absent))
        return torch.stack([self.found[seed] for seed in self.seeds])


def sheet(images: Tensor, columns: int, names: Sequence[str] | None = None) -> np.ndarray:
    """Images side by side, each below its name where there are some, or points as a scatter plot: uint8 [C, H, W]."""
    return grid(images.numpy(), columns, names=names) if images.ndim == 4 else scatter(images.numpy())


UPPER, LOWER, BOTH, NONE = "▀", "▄", "█", " "
ROWS, NARROW, WIDE = 4, 18, 80
BAYER = np.array([[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]])  # ordered dithering, in sixteenths


def render(images: np.ndarray) -> str:
    """The first few images uint8 [N, C, H, W], or points [N, 2], as lines that fit standard error.

    In colour where that is a terminal that has it (and NO_COLOR is not set), else in black and white.
    """
    colour = sys.stderr is not None and sys.stderr.isatty() and "NO_COLOR" not in os.environ
    width = shutil.get_terminal_size((WIDE, 24)).columns if colour else WIDE
    if images.ndim == 2:
        return draw_picture(_resize(scatter(images), width / 2 - 1), colour)
    columns = min(max(width // NARROW, 2), 8, len(images))
    side = (width - 1) // columns - 1
    small = [_resize(image, side) for image in images[: columns * ROWS]]
    return draw_picture(grid(np.stack(small), columns, gap=1, scale=1), colour)


def draw_picture(picture: np.ndarray, colour: bool) -> str:
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


def _resize(image: np.ndarray, side: float) -> np.ndarray:
    """[C, H, W] no wider or higher than ``side``, by averaging."""
    factor = min(1.0, side / max(image.shape[1:]))
    size = [max(1, int(length * factor)) for length in (image.shape[2], image.shape[1])]
    return np.stack([np.asarray(Image.fromarray(plane).resize(size, Image.Resampling.BOX)) for plane in image])
