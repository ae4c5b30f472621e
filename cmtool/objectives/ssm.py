"""Sliced score matching (Song et al. 2019, arXiv 1905.07088, eq. 8)."""

import torch
from torch import Tensor

from cmtool.core.denoiser import Denoise, Preconditioning, like
from cmtool.errors import UsageError, unknown
from cmtool.objectives.denoising import Denoising
from cmtool.objectives.levels import log_normal
from cmtool.objectives.objective import Batch
from cmtool.objectives.weights import weight as weight_called

__all__ = ["SlicedScoreMatching", "ssm"]

DIRECTIONS = {"rademacher": torch.sign, "gaussian": lambda v: v}


class SlicedScoreMatching(Denoising):
    """``w sigma^4 (|s|^2 / 2 + v^T grad(v^T s))`` with the score ``s = (D - x) / sigma^2``, mean over pixels.

        w (|D - x|^2 / 2 + sigma^2 (v^T J_D v - v^T v)),    x = x_0 + sigma z

    It never looks at x_0: matching the score of the noisy images needs no more than their derivative along a random
    direction v. In expectation it is half the denoising loss of the same weight, less a constant.
    """

    probes = True

    def __init__(self, *choices, directions: str = "rademacher"):
        super().__init__(*choices)
        if directions not in DIRECTIONS:
            raise unknown("distribution of directions", directions, DIRECTIONS)
        self.direction = DIRECTIONS[directions]

    def loss(self, model: Denoise, batch: Batch, progress: float) -> Tensor:
        if batch.v is None:
            raise UsageError("sliced score matching needs random directions, and the batch has none")
        sigma, v = self.levels(batch.u), self.direction(batch.v)
        x = (batch.x + like(sigma, batch.x) * batch.z).requires_grad_()
        denoised = model(x, sigma, batch.labels)
        (slope,) = torch.autograd.grad((denoised * v).sum(), x, create_graph=True)
        norm, along = (denoised - x.detach()).square() / 2, slope * v - v.square()
        return (like(self.weight(sigma), x) * (norm + like(sigma**2, x) * along)).flatten(1).mean(1)


def ssm(
    *,
    mean: float = -1.2,
    std: float = 1.2,
    weight: str = "edm",
    gamma: float = 5.0,
    directions: str = "rademacher",
    preconditioning: str = "edm",
    sigma_data: float = 0.5,
) -> SlicedScoreMatching:
    """Log-normal levels; ``directions`` are "rademacher" or "gaussian"."""
    return SlicedScoreMatching(
        lambda u: log_normal(u, mean, std),
        weight_called(weight, sigma_data, gamma),
        Preconditioning.named(preconditioning, sigma_data),
        directions=directions,
    )
