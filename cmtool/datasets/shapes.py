"""``shapes``: an endless supply of small shaded pictures, made rather than stored."""

from collections.abc import Sequence

import numpy as np

from cmtool.datasets.figures import FIGURES, WALL, Pose
from cmtool.datasets.render import Array, View, backdrop, paint
from cmtool.errors import UsageError

__all__ = ["Shapes", "shapes"]

DRAWS = 8
CHUNK = 65536  # pixels drawn at once: the work arrays stay in the cache


class Shapes:
    """Ten kinds of figure in a pose, light and colour that are a pure function of ``(seed, index)``, at any size.

    The label is ``index % 10``. Colour follows structure: the hue is fixed by the class, its pose and how the light
    falls, up to a small free tint, so that colorization and super-resolution have a truth to be scored against.
    """

    classes = tuple(FIGURES)
    notice = "shapes: drawn by cmtool, Apache-2.0"

    def __init__(self, size: int, count: int, seed: int):
        self.size, self.count, self.seed = size, count, seed
        self.shape = (3, size, size)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        images, labels = self.batch([index])
        return images[0], int(labels[0])

    def batch(self, indices: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Images uint8 [B, 3, R, R] and labels int64 [B]; each equals what its index gives alone, bit for bit."""
        where = np.asarray(indices, np.int64)
        if len(where) and not (-self.count <= where.min() and where.max() < self.count):
            raise IndexError(f"shapes has {self.count} images")
        where = where % self.count
        labels = where % len(self.classes)
        draws = np.stack([self._draw(int(i)) for i in where]) if len(where) else np.empty((0, DRAWS), np.float32)
        images = np.empty((len(where), *self.shape), np.uint8)
        step = max(1, CHUNK // self.size**2)
        for label, figure in enumerate(FIGURES.values()):
            rows = np.flatnonzero(labels == label)
            for part in np.split(rows, range(step, len(rows), step)):
                if len(part):
                    images[part] = _render(figure, draws[part], self.size)
        return images, labels

    def _draw(self, index: int) -> Array:
        """Eight uniform numbers of the image ``index``."""
        key = np.array([self.seed, index], np.uint64)
        return np.random.Generator(np.random.Philox(key=key)).random(DRAWS, dtype=np.float32)


def _render(figure, draws: Array, size: int) -> np.ndarray:
    cx, cy, scale, turn, azimuth, form, tint, height = draws.T[:, :, None, None]
    centre = (np.arange(size, dtype=np.float32) + 0.5) * np.float32(2 / size) - 1
    x, y = np.meshgrid(centre, -centre)
    angle = (azimuth - 0.5) * 1.9
    z = 0.62 + 0.18 * height
    flat = np.sqrt(1 - z * z)
    lx, ly = flat * np.sin(angle), flat * np.cos(angle)
    radius = 0.68 + 0.17 * scale
    c, s = np.cos((turn - 0.5) * 0.8), np.sin((turn - 0.5) * 0.8)
    px, py = (x - 0.14 * (cx - 0.5)) / radius, (y - 0.14 * (cy - 0.5)) / radius
    view = View(c * px + s * py, c * py - s * px, (2 / size) / radius, (c * lx + s * ly, c * ly - s * lx, z))
    image = paint(backdrop(x, y, (lx, ly, z), WALL), view, figure(Pose(scale, form, tint)))
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)


def shapes(source: str | None = None, *, size: int = 32, count: int = 50000, seed: int = 0) -> Shapes:
    """``count`` pictures of ten labelled figures at ``size`` x ``size``, seen for the first time with this seed."""
    if source is not None:
        raise UsageError(f"'shapes' is drawn and reads nothing, so it cannot use '{source}'", "leave the path out")
    return Shapes(size, count, seed)
