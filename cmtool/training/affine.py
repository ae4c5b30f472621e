"""Images through an affine map of the plane, without jagged edges: up by two, bilinear, down by two.

Both ways pass the low-pass filter of the symlet of 6 vanishing moments, whose adjoint undoes it: a map that moves
nothing changes nothing. Source: Karras et al. 2020, arXiv 2006.06676, appendix B.
"""

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["matrix", "rotation", "scaling", "translation", "warp_images"]

SYM6 = torch.tensor(
    [
        *(0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633),
        *(0.4910559419267466, 0.787641141030194, 0.3379294217276218, -0.07263752278646252),
        *(-0.021060292512300564, 0.04472490177066578, 0.0017677118642428036, -0.007800708325034148),
    ]
)
REACH = len(SYM6) // 4  # pixels around the image that the downsampling filter looks at


def matrix(*rows: tuple[Tensor | float, ...]) -> Tensor:
    """[B, n, m] in float64 from rows of numbers and tensors [B]."""
    values = [torch.as_tensor(value, dtype=torch.float64).reshape(-1) for row in rows for value in row]
    return torch.stack(torch.broadcast_tensors(*values), 1).unflatten(1, (len(rows), -1))


def scaling(x: Tensor | float, y: Tensor | float) -> Tensor:
    """[B, 3, 3], or [1, 3, 3] from numbers, on homogeneous coordinates."""
    return matrix((x, 0, 0), (0, y, 0), (0, 0, 1))


def translation(x: Tensor | float, y: Tensor | float) -> Tensor:
    """[B, 3, 3], or [1, 3, 3] from numbers, on homogeneous coordinates."""
    return matrix((1, 0, x), (0, 1, y), (0, 0, 1))


def rotation(angle: Tensor) -> Tensor:
    """[B, 3, 3] on homogeneous coordinates."""
    c, s = angle.cos(), angle.sin()
    return matrix((c, -s, 0), (s, c, 0), (0, 0, 1))


@cache
def finer(n: int) -> Tensor:
    """Mirrors n pixels at both ends and doubles their number, [2 (3 n - 2), n]; along a row that is a matrix."""
    mirrored = F.pad(torch.eye(n)[:, None], (n - 1, n - 1), mode="reflect")
    return F.conv_transpose1d(mirrored, SYM6[None, None], stride=2, padding=len(SYM6) // 2 - 1)[:, 0].T


@cache
def coarser(n: int) -> Tensor:
    """Halves the number of pixels and cuts the ``REACH`` at both ends, [n, 2 (n + 2 REACH)]."""
    every = torch.eye(2 * (n + 2 * REACH))[:, None]
    return F.conv1d(every, SYM6[None, None], stride=2, padding=len(SYM6) // 2 - 1)[:, 0, REACH:-REACH].T


def warp_images(images: Tensor, inverse: Tensor) -> Tensor:
    """Each of ``images`` [B, C, H, W] moved by the map whose ``inverse`` [B, 3, 3] says where a pixel comes from.

    Pixels are counted from the centre; beyond its edges an image is mirrored once.
    """
    h, w = images.shape[2:]
    wide = finer(h) @ images @ finer(w).T
    height, width = 2 * (h + 2 * REACH), 2 * (w + 2 * REACH)

    half = translation(0.5, 0.5)  # the pixels of the finer grid lie beside those of the coarser
    fine = translation(-0.5, -0.5) @ scaling(2, 2) @ inverse @ scaling(0.5, 0.5) @ half
    unit = scaling(2 / wide.shape[3], 2 / wide.shape[2]) @ fine @ scaling(width / 2, height / 2)
    grid = F.affine_grid(unit[:, :2].to(images), [*images.shape[:2], height, width], align_corners=False)
    moved = F.grid_sample(wide, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return coarser(h) @ moved @ coarser(w).T
