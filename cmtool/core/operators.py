"""Editing tasks: an invertible linear map ``A`` and which coordinates of ``A x`` are unknown.

Everything a walk needs: where it starts, from which level, and how the known part is put back after each jump:
``impose(x) = A^-1 [(A y)(1 - Omega) + (A x) Omega]`` with Omega = 1 on what is unknown.
Source: Song et al. 2023, arXiv 2303.01469, algorithm 4 and appendix D.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from cmtool.errors import UsageError

__all__ = ["Operator", "colorize", "denoise", "inpaint", "orthogonal", "stroke", "superres"]

Map = Callable[[Tensor], Tensor]

# What a grey value is made of (ITU-R BT.601 luma), as in the paper's colorization.
LUMA = (0.2989, 0.5870, 0.1140)


def _identity(x: Tensor) -> Tensor:
    return x


@dataclass(frozen=True)
class Operator:
    """A task on ``reference`` y [B, C, H, W] in [-1, 1].

    ``unknown`` is Omega, broadcast over ``forward(x)``. ``start`` is the image that the first noise is added to,
    ``level`` the noise level there (None: the model's highest); ``noisy`` says that ``start`` has that noise already.
    """

    reference: Tensor
    forward: Map
    inverse: Map
    unknown: Tensor
    start: Tensor
    level: float | None = None
    noisy: bool = False

    def impose(self, x: Tensor) -> Tensor:
        """x with its known part replaced by that of the reference."""
        known, free = self.forward(self.reference), self.forward(x)
        return self.inverse(torch.where(self.unknown.bool(), free, known))

    def known_part(self, x: Tensor) -> Tensor:
        """``A^-1 [(A x)(1 - Omega)]``: what the task keeps of an image; 0 where nothing is known."""
        return self.inverse(torch.where(self.unknown.bool(), 0.0, self.forward(x)))


def _measured(reference: Tensor, forward: Map, inverse: Map, unknown: Tensor) -> Operator:
    """A task that keeps part of the reference and starts from pure noise around that part."""
    blank = inverse(torch.where(unknown.bool(), 0.0, forward(reference)))
    return Operator(reference, forward, inverse, unknown, start=blank)


def orthogonal(first: Tensor) -> Tensor:
    """An orthogonal matrix [d, d] whose first column is parallel to ``first`` [d]; the rest by Gram-Schmidt."""
    basis = torch.eye(len(first), dtype=torch.float64)
    basis[:, 0] = first
    q, r = torch.linalg.qr(basis)
    return q * torch.sign(torch.diagonal(r))


def inpaint(reference: Tensor, *, mask: Tensor | None = None) -> Operator:
    """Fill in the pixels where ``mask`` [B or 1, 1, H, W] is above one half; all others are kept exactly."""
    if mask is None:
        raise UsageError(
            "inpaint needs a mask", "give --mask FILE, an image that is white where pixels are to be filled in"
        )
    return _measured(reference, _identity, _identity, mask.to(reference) > 0.5)


def colorize(reference: Tensor) -> Operator:
    """Keep the grey value of each pixel, ``(0.2989, 0.5870, 0.1140) . rgb``, and invent the two other coordinates."""
    if reference.shape[1] != 3:
        raise UsageError("colorize needs a model of colour images, and this one is grey")
    q = orthogonal(torch.tensor(LUMA, dtype=torch.float64)).to(reference)
    unknown = torch.tensor([False, True, True], device=reference.device).view(1, 3, 1, 1)
    return _measured(
        reference,
        lambda x: torch.einsum("bchw,ck->bkhw", x, q),
        lambda y: torch.einsum("bkhw,ck->bchw", y, q),
        unknown,
    )


def superres(reference: Tensor, *, factor: int = 4) -> Operator:
    """Keep the mean of each ``factor`` x ``factor`` patch and invent the rest of it."""
    height, width = reference.shape[-2:]
    if factor < 2 or height % factor or width % factor:
        raise UsageError(
            f"a factor of {factor} does not divide {width}x{height} pixels", "choose one that does: --factor 2"
        )
    q = orthogonal(torch.ones(factor**2, dtype=torch.float64)).to(reference)

    def forward(x: Tensor) -> Tensor:
        rows = x.unflatten(-2, (-1, factor)).unflatten(-1, (-1, factor)).movedim(-3, -2)
        return rows.flatten(-2) @ q

    def inverse(y: Tensor) -> Tensor:
        rows = (y @ q.T).unflatten(-1, (factor, factor)).movedim(-2, -3)
        return rows.flatten(-2).flatten(-3, -2)

    unknown = torch.arange(factor**2, device=reference.device) > 0
    return _measured(reference, forward, inverse, unknown)


def _free(reference: Tensor, level: float, noisy: bool) -> Operator:
    """A task that keeps nothing by force and starts part of the way, from the reference itself."""
    everything = torch.ones(1, dtype=torch.bool, device=reference.device)
    return Operator(reference, _identity, _identity, everything, start=reference, level=level, noisy=noisy)


def denoise(reference: Tensor, *, level: float = 0.3) -> Operator:
    """Remove white noise of standard deviation ``level`` (pixel values in [-1, 1]): ``f(y, level)``."""
    return _free(reference, level, noisy=True)


def stroke(reference: Tensor, *, level: float = 5.38) -> Operator:
    """Turn a rough painting into an image: noise it to ``level``, then jump.

    Source: SDEdit, Meng et al. 2022, arXiv 2108.01073.
    """
    return _free(reference, level, noisy=False)
