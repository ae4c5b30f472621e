"""Noise-conditional score networks (Song and Ermon 2019, arXiv 1907.05600, eq. 6)."""

from cmtool.core.denoiser import Preconditioning
from cmtool.core.rungs import geometric
from cmtool.objectives.denoising import Denoising
from cmtool.objectives.levels import on_ladder
from cmtool.objectives.weights import weight as weight_called

__all__ = ["ncsn"]


def ncsn(
    *,
    steps: int = 232,
    weight: str = "noise",
    gamma: float = 5.0,
    preconditioning: str = "ve",
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    sigma_data: float = 0.5,
) -> Denoising:
    """Levels of a geometric ladder, each as often as the others, with ``lambda(sigma) = sigma^2``."""
    ladder = geometric(steps, sigma_min, sigma_max)
    return Denoising(
        levels=lambda u: on_ladder(u, ladder),
        weight=weight_called(weight, sigma_data, gamma),
        preconditioning=Preconditioning.named(preconditioning, sigma_data),
    )
