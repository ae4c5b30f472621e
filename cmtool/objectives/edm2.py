"""EDM with learned uncertainty (Karras et al. 2024, arXiv 2312.02696)."""

from cmtool.core.denoiser import Preconditioning
from cmtool.errors import unknown
from cmtool.objectives.denoising import LogVariance, UncertainDenoising
from cmtool.objectives.levels import log_normal
from cmtool.objectives.uncertainty import FourierLogVariance
from cmtool.objectives.weights import weight as weight_called

__all__ = ["HEADS", "edm2"]

HEADS = {"sines": LogVariance, "fourier": FourierLogVariance}


def edm2(
    *,
    mean: float = -0.8,
    std: float = 1.6,
    weight: str = "edm",
    gamma: float = 5.0,
    preconditioning: str = "edm",
    sigma_data: float = 0.5,
    head: str = "sines",
) -> UncertainDenoising:
    """Log-normal levels, wider than EDM's because what a level counts is learned; (-0.4, 1) suits latents.

    ``head``, the learned log-variance: "sines" of low frequency starts as 0, "fourier" is the published one.
    """
    if head not in HEADS:
        raise unknown("head", head, HEADS)
    return UncertainDenoising(
        levels=lambda u: log_normal(u, mean, std),
        weight=weight_called(weight, sigma_data, gamma),
        preconditioning=Preconditioning.named(preconditioning, sigma_data),
        head=HEADS[head](),
    )
