"""The simple loss of DDPM (Ho et al. 2020, arXiv 2006.11239, eq. 14)."""

from dataclasses import replace

from cmtool.core import rungs
from cmtool.core.coordinates import linear_betas
from cmtool.core.denoiser import Preconditioning
from cmtool.objectives.denoising import Denoising
from cmtool.objectives.levels import on_ladder
from cmtool.objectives.weights import weight as weight_called

__all__ = ["ddpm"]


def ddpm(
    *,
    steps: int = 1000,
    schedule: str = "linear",
    weight: str = "noise",
    gamma: float = 5.0,
    preconditioning: str = "ddpm",
    sigma_data: float = 0.5,
    beta_min: float = 0.1,
    beta_max: float = 20.0,
) -> Denoising:
    """``|eps(x_i, i) - z|^2`` at a uniformly chosen one of ``steps`` steps; ``schedule`` is "linear" or "cosine".

    The linear one goes from ``beta_min / steps`` to ``beta_max / steps``.
    """
    betas = dict(zip(("beta_min", "beta_max"), linear_betas(beta_min, beta_max), strict=True))
    ladder = rungs.ddpm(steps, schedule, **(betas if schedule == "linear" else {}))
    return Denoising(
        levels=lambda u: on_ladder(u, ladder),
        weight=weight_called(weight, sigma_data, gamma),
        preconditioning=replace(Preconditioning.named(preconditioning, sigma_data), **betas),
    )
