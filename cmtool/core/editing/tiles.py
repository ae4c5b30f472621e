"""Pictures larger than the model: cut into tiles that overlap, and joined again."""

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from cmtool.core.noise import START, Noise

__all__ = ["Corner", "TiledNoise", "cut_tiles", "join_tiles", "tile_corners"]

Corner = tuple[int, int]  # the upper left corner of a tile: top, left


def tile_corners(size: tuple[int, int], tile: tuple[int, int], step: int = 1) -> list[Corner]:
    """The corners of the fewest tiles that cover ``size`` (H, W), a quarter of each shared, row by row.

    They lie on multiples of ``step``, which must divide both sizes, so that patches of that size are never cut.
    """
    tops, lefts = (_starts(length, side, step) for length, side in zip(size, tile, strict=True))
    return [(top, left) for top in tops for left in lefts]


def _starts(length: int, side: int, step: int) -> list[int]:
    shared = side // 4
    count = max(1, math.ceil((length - shared) / (side - shared)))
    return [round(i * (length - side) / max(count - 1, 1) / step) * step for i in range(count)]


def cut_tiles(canvas: Tensor, corners: Sequence[Corner], tile: Sequence[int]) -> Tensor:
    """The tiles [T, C, h, w] of a picture [C, H, W]."""
    return torch.stack([canvas[:, top : top + tile[0], left : left + tile[1]] for top, left in corners])


def join_tiles(tiles: Tensor, corners: Sequence[Corner], size: tuple[int, int], step: int = 1) -> Tensor:
    """The picture [C, H, W] of tiles [T, C, h, w]; where they overlap, a mean that favours the middle of each.

    What all tiles know of a pixel, their mean knows as well; so of a patch of ``step`` x ``step`` pixels, all of which
    weigh the same. A tile alone is left as it is.
    """
    if len(tiles) == 1:
        return tiles[0]
    height, width = tiles.shape[-2:]
    weight = torch.outer(_ramp(height, step), _ramp(width, step))
    total, weights = torch.zeros(tiles.shape[1], *size, dtype=torch.float64), torch.zeros(size, dtype=torch.float64)
    for tile, (top, left) in zip(tiles, corners, strict=True):
        total[:, top : top + height, left : left + width] += weight * tile
        weights[top : top + height, left : left + width] += weight
    return (total / weights).to(tiles)


def _ramp(n: int, step: int) -> Tensor:
    k = torch.arange(n // step, dtype=torch.float64)
    return torch.minimum(k + 1, n // step - k).repeat_interleave(step)


class TiledNoise(Noise):
    """Noise of whole pictures, of which every row sees its tile: where tiles overlap, their noise is the same.

    A row of a picture that is one tile has the noise of its seed, as in ``Noise``.
    """

    def __init__(self, seeds: Sequence[int], size: Sequence[tuple[int, int]], corners: Sequence[Corner]):
        super().__init__(seeds)
        self.size, self.corners = size, corners
        self.whole = lru_cache(maxsize=4)(self._whole)

    def normal(self, shape: Sequence[int], stream: int = START) -> Tensor:
        channels, *tile = shape
        rows = zip(self.seeds, self.size, strict=True)
        wholes = [self.whole(seed, (channels, *size), stream) for seed, size in rows]
        windows = zip(wholes, self.corners, strict=True)
        return torch.stack([z[:, top : top + tile[0], left : left + tile[1]] for z, (top, left) in windows])

    def _whole(self, seed: int, shape: tuple[int, ...], stream: int) -> Tensor:
        return Noise([seed]).normal(shape, stream)[0]
