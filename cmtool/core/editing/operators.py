"""Editing operators: an invertible linear map ``A`` and which coordinates of ``A x`` are unknown.

Everything a sampler needs: where it starts, from which noise level, how the known part is put back after each step,
``impose(x) = A^-1 [(A y)(1 - Omega) + (A x) Omega]`` with Omega = 1 on what is unknown, and how the result becomes
whole grey levels without losing the known part again.
Source: Song et al. 2023, arXiv 2303.01469, algorithm 4 and appendix D.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from cmtool.core.editing.masks import border
from cmtool.core.pixels import to_pixels
from cmtool.errors import Hint, Setting, UsageError
from cmtool.options.plugin_option import Option
from cmtool.options.types import at_least, positive

__all__ = [
    "HIGH",
    "LUMA",
    "Operator",
    "colorize",
    "denoise",
    "estimate_sigma",
    "identity",
    "inpaint",
    "orthogonal",
    "outpaint",
    "round_keeping_sum",
    "stroke",
    "superres",
]


def round_keeping_sum(values: Tensor, weights: Tensor) -> Tensor:
    """Whole numbers in [0, 255] near ``values`` [..., n] whose sum by ``weights`` [n] is that of the values.

    What rounding one number adds to the sum is taken off the next, so only the rounding of the last one is left: put
    the smallest weight last. With equal weights a whole sum is kept exactly.
    """
    out, debt = torch.empty_like(values), torch.zeros_like(values[..., 0])
    for k, weight in enumerate(weights.tolist()):
        wanted = values[..., k] + debt / weight
        out[..., k] = wanted.round().clamp(0, 255)
        debt = (wanted - out[..., k]) * weight
    return out


Map = Callable[[Tensor], Tensor]

# What a grey value is made of (ITU-R BT.601 luma), as in the paper's colorization.
LUMA = (0.2989, 0.5870, 0.1140)

# A noise level ten times the deviation of images: what is not known is drowned, whatever stands in its place, and what
# is known in the large can still be seen. Colours have to be invented in the large, and start from all noise there is.
HIGH = 5.0


def identity(x: Tensor) -> Tensor:
    """x itself."""
    return x


@dataclass(frozen=True)
class Operator:
    """A task on ``reference`` y [B, C, H, W] in [-1, 1].

    ``unknown`` is Omega, broadcast over ``forward(x)``: bool, or in [0, 1] where what is known fades into what is not.
    ``start`` is the image that the first noise is added to, ``level`` the noise level of that (None: the model's
    highest); ``noisy`` says that ``start`` has that noise already. ``floor`` is a good last noise level, ``steps`` a
    good number of consistency steps. ``pixels`` turns the result into uint8.
    """

    reference: Tensor
    forward: Map
    inverse: Map
    unknown: Tensor
    start: Tensor
    level: float | None = None
    noisy: bool = False
    floor: float = 0.2
    steps: int = 16
    pixels: Map = to_pixels

    @property
    def keeps(self) -> bool:
        """Whether anything is known for certain."""
        return bool((self.unknown == 0).any())

    def impose(self, x: Tensor) -> Tensor:
        """x with its known part replaced by that of the reference."""
        known, free = self.forward(self.reference), self.forward(x)
        if self.unknown.dtype == torch.bool:
            return self.inverse(torch.where(self.unknown, free, known))
        return self.inverse(torch.lerp(known, free, self.unknown))

    def known_part(self, x: Tensor) -> Tensor:
        """``A^-1 [(A x)(1 - Omega)]``, fading parts left out: what the task keeps of an image; 0 where nothing is."""
        return self.inverse(torch.where(self.unknown > 0, 0.0, self.forward(x)))


def _measured_operator(
    reference: Tensor, forward: Map, inverse: Map, unknown: Tensor, pixels: Map = to_pixels
) -> Operator:
    """A task that keeps part of the reference and starts from that part alone."""
    blank = inverse(torch.where(unknown > 0, 0.0, forward(reference)))
    return Operator(reference, forward, inverse, unknown, start=blank, level=HIGH, pixels=pixels)


def orthogonal(first: Tensor) -> Tensor:
    """An orthogonal matrix [d, d] whose first column is parallel to ``first`` [d]; the rest by Gram-Schmidt."""
    basis = torch.eye(len(first), dtype=torch.float64)
    basis[:, 0] = first
    q, r = torch.linalg.qr(basis)
    return q * torch.sign(torch.diagonal(r))


def inpaint(
    reference: Tensor,
    *,
    mask: Annotated[Tensor | None, Option("[B or 1, 1, H, W]: 1 where pixels are filled in, 0 where kept")] = None,
) -> Operator:
    """Fill in the pixels where ``mask`` is 1 and keep those where it is 0; in between is blended.

    Formula: ``A = 1``, ``Omega = mask``
    Paper: Song et al. 2023, arXiv 2303.01469, algorithm 4 and appendix D.
    Use: to remove something from a picture, or to repair it.
    """
    if mask is None:
        raise UsageError(
            "inpaint needs a mask",
            Hint(
                "give {}, an image that is white where pixels are to be filled in, {} or {}",
                Setting("mask", "FILE"),
                Setting("box", "X,Y,W,H"),
                Setting("random", 0.5),
            ),
        )
    mask = mask.to(reference)
    hard = bool(((mask == 0) | (mask == 1)).all())
    return _measured_operator(reference, identity, identity, mask > 0.5 if hard else mask)


def outpaint(
    reference: Tensor,
    *,
    margin: Annotated[tuple[int, ...], Option("pixels on each side, or top, left, bottom, right", at_least(0))] = (4,),
) -> Operator:
    """Keep the middle and invent ``margin`` pixels around it.

    Formula: ``A = 1``, ``Omega = 1`` in the margin
    Use: to continue a picture beyond its edges.
    """
    sides = margin * 4 if len(margin) == 1 else margin
    height, width = reference.shape[-2:]
    if len(sides) != 4 or sides[0] + sides[2] >= height or sides[1] + sides[3] >= width or min(sides) < 0:
        raise UsageError(
            f"a margin of {','.join(map(str, margin))} leaves nothing of {width}x{height} pixels",
            Hint("give one number, or those of top, left, bottom and right: {}", Setting("margin", 4)),
        )
    return inpaint(reference, mask=border(height, width, *sides))


def colorize(reference: Tensor) -> Operator:
    """Keep the grey value of each pixel and invent the two other coordinates of its colour.

    Formula: ``A = Q^T`` for an orthogonal Q whose first column is parallel to (0.2989, 0.5870, 0.1140);
        ``Omega = (0, 1, 1)``
    Paper: Song et al. 2023, arXiv 2303.01469, algorithm 4 and appendix D.
    Use: to colour a grey picture.
    """
    if reference.shape[1] != 3:
        raise UsageError("colorize needs a model of colour images, and this one is grey")
    q = orthogonal(torch.tensor(LUMA, dtype=torch.float64)).to(reference)
    unknown = torch.tensor([False, True, True], device=reference.device).view(1, 3, 1, 1)
    luma = torch.tensor(LUMA, dtype=torch.float64).to(reference)
    grey = torch.einsum("bchw,c->bhw", reference, luma) / luma.sum()
    return Operator(
        reference,
        lambda x: torch.einsum("bchw,ck->bkhw", x, q),
        lambda y: torch.einsum("bkhw,ck->bchw", y, q),
        unknown,
        start=grey[:, None].expand_as(reference),
        pixels=_same_grey,
    )


def _same_grey(x: Tensor) -> Tensor:
    """uint8 [B, 3, H, W] with the grey values of x to a tenth of a level; blue, which counts least, goes last."""
    grb = ((x[:, [1, 0, 2]].double() + 1) * 127.5).movedim(1, -1)
    rounded = round_keeping_sum(grb, torch.tensor([LUMA[1], LUMA[0], LUMA[2]]))
    return rounded[..., [1, 0, 2]].movedim(-1, 1).to(torch.uint8)


def superres(
    reference: Tensor, *, factor: Annotated[int, Option("side of a patch in pixels; it divides the image")] = 4
) -> Operator:
    """Keep the mean of each ``factor`` x ``factor`` patch and invent the rest of it.

    Formula: ``A = Q^T`` on each patch for an orthogonal Q whose first column is constant; ``Omega = (0, 1, ..., 1)``
    Paper: Song et al. 2023, arXiv 2303.01469, algorithm 4 and appendix D.
    Use: to enlarge a small picture.
    """
    height, width = reference.shape[-2:]
    if factor < 2 or height % factor or width % factor:
        fit = [n for n in range(2, min(height, width) + 1) if height % n == 0 == width % n]
        hint = Hint("choose one that does: {}", Setting("factor", fit[0])) if fit else "no factor does"
        raise UsageError(f"a factor of {factor} does not divide {width}x{height} pixels", hint)
    q = orthogonal(torch.ones(factor**2, dtype=torch.float64)).to(reference)

    def patches(x: Tensor) -> Tensor:
        return x.unflatten(-2, (-1, factor)).unflatten(-1, (-1, factor)).movedim(-3, -2).flatten(-2)

    def image(rows: Tensor) -> Tensor:
        return rows.unflatten(-1, (factor, factor)).movedim(-2, -3).flatten(-2).flatten(-3, -2)

    def same_means(x: Tensor) -> Tensor:
        rounded = round_keeping_sum(patches((x.double() + 1) * 127.5), torch.ones(factor**2))
        return image(rounded).to(torch.uint8)

    unknown = torch.arange(factor**2, device=reference.device) > 0
    return _measured_operator(reference, lambda x: patches(x) @ q, lambda y: image(y @ q.T), unknown, same_means)


def _from_noise(reference: Tensor, level: float, floor: float, steps: int, noisy: bool = False) -> Operator:
    """A task that keeps nothing by force and starts at a noise level below the highest, from the reference itself."""
    everything = torch.ones(1, dtype=torch.bool, device=reference.device)
    return Operator(reference, identity, identity, everything, reference, level, noisy, floor, steps)


def denoise(
    reference: Tensor,
    *,
    level: Annotated[
        float | None, Option("deviation of the noise, pixel values in [-1, 1]; estimated when not given", positive())
    ] = None,
) -> Operator:
    """Remove white noise of standard deviation ``level``.

    Without ``level`` it is estimated from all the images of the reference.

    Formula: ``f(y, level)``
    Paper: Song et al. 2023, arXiv 2303.01469, appendix D.
    Use: with a noisy picture.
    """
    level = estimate_sigma(reference) if level is None else level
    return _from_noise(reference, level, floor=level / 3, steps=1, noisy=True)


def estimate_sigma(x: Tensor) -> float:
    """The standard deviation of the white noise in an image or more, [..., H, W].

        sigma = median |d| / 0.6745,    d = (a - b - c + e) / 2 on patches of 2x2 pixels [[a, b], [c, e]]

    Half the diagonal details of a picture are next to nothing but noise; a picture of nothing but texture is
    overestimated. Source: Donoho and Johnstone 1994, Ideal spatial adaptation by wavelet shrinkage.
    """
    x = x[..., : x.shape[-2] // 2 * 2, : x.shape[-1] // 2 * 2].double()
    left, right = x[..., 0::2], x[..., 1::2]
    details = ((left - right)[..., 0::2, :] - (left - right)[..., 1::2, :]) / 2
    return float(details.abs().median()) / 0.6745


def stroke(
    reference: Tensor,
    *,
    level: Annotated[float, Option("noise level to start from; higher is freer", positive())] = 5.38,
) -> Operator:
    """Turn a rough painting into an image: consistency steps from ``level`` and from 0.42 of it.

    Formula: ``f(y + level z, level)``
    Paper: SDEdit, Meng et al. 2022, arXiv 2108.01073; Song et al. 2023, arXiv 2303.01469, appendix D.
    Use: with a painting of a few strokes.
    """
    return _from_noise(reference, level, floor=level * 2.24 / 5.38, steps=2)
