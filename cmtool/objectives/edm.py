"""Denoising as in EDM (Karras et al. 2022, arXiv 2206.00364, table 1 and eq. 2)."""

from cmtool.core.denoiser import Preconditioning
from cmtool.objectives.denoising import Denoising
from cmtool.objectives.levels import log_normal
from cmtool.objectives.weights import weight as weight_called

__all__ = ["edm"]


def edm(
    *,
    mean: float = -1.2,
    std: float = 1.2,
    weight: str = "edm",
    gamma: float = 5.0,
    preconditioning: str = "edm",
    sigma_data: float = 0.5,
) -> Denoising:
    """``ln sigma ~ N(mean, std^2)``; with the weight "edm" the network's own error counts alike at every level."""
    return Denoising(
        levels=lambda u: log_normal(u, mean, std),
        weight=weight_called(weight, sigma_data, gamma),
        preconditioning=Preconditioning.named(preconditioning, sigma_data),
    )
