"""Points in the plane with known densities, each coordinate of mean 0 and standard deviation 1/2.

Point i is made from the i-th row of uniform numbers of the seed, so it does not depend on ``count``.
"""

from collections.abc import Callable, Sequence
from math import pi
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from cmtool.datasets import Dataset
from cmtool.errors import UsageError
from cmtool.options.plugin_option import Option
from cmtool.options.types import LARGEST_SEED, Check, at_least

__all__ = ["Points", "checkerboard", "gaussians", "ring"]

CountOption = Annotated[int, Option("how many points", at_least(1, 10**9))]
SeedOption = Annotated[int, Option("another one gives other points", at_least(0, LARGEST_SEED))]
SPREAD = Check(lambda spread: 0 < spread < 0.5, "between 0 and 0.5")
SpreadOption = Annotated[float, Option("standard deviation of the Gaussian around each place", SPREAD)]
EVEN = Check(lambda cells: cells >= 2 and cells % 2 == 0, "an even number", 1 << 16)
VARIANCE = 0.25  # of each coordinate: what sigma_data = 0.5 says of images


class Points(Dataset):
    """Points float32 [2] with the ``density(x [N, 2]) -> [N]`` they were drawn from; labels number the modes."""

    shape = (2,)
    thread_safe = True

    def __init__(self, name: str, points: np.ndarray, labels: np.ndarray | None, density: Callable[[Tensor], Tensor]):
        self.points = torch.from_numpy(points.astype(np.float32))
        self.labels = None if labels is None else torch.from_numpy(labels)
        self.classes = () if labels is None else tuple(str(k) for k in range(int(labels.max()) + 1))
        self.density = density
        self.notice = f"{name}: drawn by cmtool, Apache-2.0"

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, index: int, /) -> tuple[Tensor, int | None]:
        return self.points[index], None if self.labels is None else int(self.labels[index])

    def batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        """Points float32 [B, 2] and labels int64 [B] or None."""
        rows = torch.as_tensor(indices, dtype=torch.long)
        return self.points[rows], None if self.labels is None else self.labels[rows]


def gaussians(
    source: str | None = None,
    *,
    count: CountOption = 100000,
    seed: SeedOption = 0,
    modes: Annotated[int, Option("how many Gaussians, which are the classes", at_least(2, 1 << 16))] = 8,
    spread: SpreadOption = 0.1,
) -> Points:
    """Points of round Gaussians, evenly on a circle; the label of point i is ``i % modes``.

    Formula: ``p(x) = mean_k N(x; m_k, spread^2)`` with ``|m_k|^2 = 2 (1/4 - spread^2)``
    Use: to see modes and classes, with a density that is known.
    """
    _refuse_path("gaussians", source)
    turns = np.arange(modes) * (2 * pi / modes)
    centres = _radius(spread) * np.stack([np.cos(turns), np.sin(turns)], axis=1)
    labels = np.arange(count) % modes
    points = centres[labels] + spread * _normal(_uniform(count, seed)[:, :2])

    def density(x: Tensor) -> Tensor:
        squares = (x[:, None] - torch.from_numpy(centres).to(x)).square().sum(-1)
        return (-squares / (2 * spread**2)).exp().mean(1) / (2 * pi * spread**2)

    return Points("gaussians", points, labels, density)


def ring(
    source: str | None = None, *, count: CountOption = 100000, seed: SeedOption = 0, spread: SpreadOption = 0.05
) -> Points:
    """Points of a circle of radius R, blurred by a Gaussian of standard deviation ``s = spread``.

    Formula: ``p(x) = exp(-(|x|^2 + R^2) / 2 s^2) I_0(|x| R / s^2) / (2 pi s^2)``, ``R^2 = 2 (1/4 - s^2)``
    Use: for thin data without classes, with a density that is known.
    """
    _refuse_path("ring", source)
    radius, u = _radius(spread), _uniform(count, seed)
    turns = 2 * pi * u[:, 2]
    points = radius * np.stack([np.cos(turns), np.sin(turns)], axis=1) + spread * _normal(u[:, :2])

    def density(x: Tensor) -> Tensor:
        r = x.norm(dim=-1)
        # i0e(z) = exp(-z) I_0(z) turns the exponent into a square that cannot overflow.
        bessel = torch.special.i0e(r * radius / spread**2)
        return (-(r - radius).square() / (2 * spread**2)).exp() * bessel / (2 * pi * spread**2)

    return Points("ring", points, None, density)


def checkerboard(
    source: str | None = None,
    *,
    count: CountOption = 100000,
    seed: SeedOption = 0,
    cells: Annotated[int, Option("fields in a row, an even number", EVEN)] = 4,
) -> Points:
    """Points of the dark fields of a board of ``cells`` x ``cells`` over [-a, a]^2.

    Formula: ``p(x) = 1 / (2 a^2)`` on dark fields, with ``a = sqrt(3) / 2``; a coordinate alone is uniform
    Use: for sharp edges, with a density that is known.
    """
    _refuse_path("checkerboard", source)
    side = (3 * VARIANCE) ** 0.5
    u = _uniform(count, seed)
    column = np.floor(u[:, 2] * cells)
    row = 2 * np.floor(u[:, 3] * (cells // 2)) + column % 2
    points = (np.stack([column, row], axis=1) + u[:, :2]) * (2 * side / cells) - side

    def density(x: Tensor) -> Tensor:
        field = ((x + side) * (cells / (2 * side))).floor()
        dark = (field.sum(-1) % 2 == 0) & (field >= 0).all(-1) & (field < cells).all(-1)
        return dark.to(x.dtype) / (2 * side**2)

    return Points("checkerboard", points, None, density)


def _refuse_path(name: str, source: str | None) -> None:
    if source is not None:
        raise UsageError(f"'{name}' draws its points and reads nothing from {source}", "leave the path out")


def _radius(spread: float) -> float:
    return (2 * (VARIANCE - spread**2)) ** 0.5


def _uniform(count: int, seed: int) -> np.ndarray:
    """Four uniform numbers a point, float64 [count, 4] in [0, 1)."""
    return np.random.Generator(np.random.Philox(key=seed)).random((count, 4))


def _normal(u: np.ndarray) -> np.ndarray:
    """Box-Muller: two uniform columns to two normal ones."""
    r = np.sqrt(-2 * np.log1p(-u[:, 0]))
    return np.stack([r * np.cos(2 * pi * u[:, 1]), r * np.sin(2 * pi * u[:, 1])], axis=1)
