"""``shapes``: small shaded pictures, as many as are wanted, made rather than stored."""

import operator
from collections.abc import Callable, Sequence
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from cmtool.datasets import Dataset
from cmtool.datasets.figures import FIGURES, WALL, Pose
from cmtool.datasets.render import Array, Part, View, backdrop, paint
from cmtool.errors import UsageError
from cmtool.options.plugin_option import Option
from cmtool.options.types import LARGEST_SEED, at_least

__all__ = ["Shapes", "shapes"]

DRAWS = 8  # numbers that make a picture
CHUNK = 1 << 15  # pixels drawn at once, so that the work arrays stay in the cache


class Shapes(Dataset):
    """Ten kinds of figure in a pose, light and colour that are a function of ``(seed, index)``, at any size.

    The label is ``index % 10``. Colour follows structure: the hue comes from the class, the pose and the light, but
    for a small free tint, so that a colorized or enlarged picture has a truth to be scored against.
    """

    classes = tuple(FIGURES)
    thread_safe = True
    notice = "shapes: drawn by cmtool, Apache-2.0"

    def __init__(self, size: int, count: int, seed: int):
        self.size, self.count, self.seed = size, count, seed
        self.shape = (3, size, size)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int, /) -> tuple[Tensor, int]:
        index = range(self.count)[operator.index(index)]
        images, labels = self.batch([index])
        return images[0], int(labels[0])

    def batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Images uint8 [B, 3, size, size] and labels int64 [B]; each is what its index gives alone, bit for bit."""
        where = np.asarray(indices, np.int64)
        labels = where % len(self.classes)
        draws = np.array([self._draw(int(i)) for i in where], np.float32).reshape(-1, DRAWS)
        images = np.empty((len(where), *self.shape), np.uint8)
        step = max(1, CHUNK // self.size**2)
        for label, figure in enumerate(FIGURES.values()):
            rows = np.flatnonzero(labels == label)
            for start in range(0, len(rows), step):
                some = rows[start : start + step]
                images[some] = _picture(figure, draws[some], self.size)
        return torch.from_numpy(images), torch.from_numpy(labels)

    def _draw(self, index: int) -> Array:
        bits = np.random.Philox(key=np.array([self.seed, index], np.uint64))
        return np.random.Generator(bits).random(DRAWS, dtype=np.float32)


def _picture(figure: Callable[[Pose], list[Part]], draws: Array, size: int) -> np.ndarray:
    """uint8 [B, 3, size, size] from uniform numbers [B, 8]: place, size, turn, light from above, form and tint."""
    u, v, scale, turn, side, height, form, tint = draws.T[:, :, None, None]
    centre = (np.arange(size, dtype=np.float32) + 0.5) * (2 / size) - 1
    x, y = np.meshgrid(centre, -centre)
    lz = 0.62 + 0.18 * height
    lx, ly = np.sqrt(1 - lz * lz) * np.sin(1.9 * (side - 0.5)), np.sqrt(1 - lz * lz) * np.cos(1.9 * (side - 0.5))
    radius, c, s = 0.68 + 0.17 * scale, np.cos(0.8 * (turn - 0.5)), np.sin(0.8 * (turn - 0.5))
    dx, dy = (x - 0.14 * (u - 0.5)) / radius, (y - 0.14 * (v - 0.5)) / radius
    view = View(c * dx + s * dy, c * dy - s * dx, (2 / size) / radius, (c * lx + s * ly, c * ly - s * lx, lz))
    image = paint(backdrop(x, y, (lx, ly, lz), WALL), view, figure(Pose(scale, form, tint)))
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)


def shapes(
    source: str | None = None,
    *,
    size: Annotated[int, Option("side in pixels", at_least(4, 1 << 14))] = 32,
    count: Annotated[int, Option("how many pictures", at_least(1))] = 50000,
    seed: Annotated[int, Option("another one gives other pictures", at_least(0, LARGEST_SEED))] = 0,
) -> Shapes:
    """Shaded pictures of ten kinds of figure, drawn as they are asked for: colour images of any size and number.

    Use: for class-conditional colour images without a download; the bundled models were trained on them.
    """
    if source is not None:
        raise UsageError(f"'shapes' draws its pictures and reads nothing from {source}", "leave the path out")
    return Shapes(size, count, seed)
