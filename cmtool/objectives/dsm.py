"""Denoising score matching for the SDEs of Song et al. 2021 (arXiv 2011.13456, eq. 7)."""

from dataclasses import replace

from torch import Tensor

from cmtool.core.coordinates import linear_betas, span
from cmtool.core.denoiser import Preconditioning
from cmtool.core.process import VE, VP, Process, SubVP
from cmtool.errors import unknown
from cmtool.objectives.denoising import Denoising
from cmtool.objectives.levels import uniform_time
from cmtool.objectives.weights import WEIGHTS, Weight
from cmtool.objectives.weights import weight as weight_called

__all__ = ["dsm", "likelihood"]


def likelihood(process: Process) -> Weight:
    """``g^2 |score + z/std|^2`` as a weight of ``|D - x|^2``: ``(g / std)^2 / sigma^2`` with ``std = s sigma``.

    It bounds the likelihood (Song et al. 2021, arXiv 2101.09258, theorem 1).
    """

    def weight(sigma: Tensor) -> Tensor:
        t = process.time(sigma)
        return (process.diffusion(t) / (process.scale(t) * sigma**2)) ** 2

    return weight


def dsm(
    *,
    process: str = "vp",
    weight: str = "noise",
    gamma: float = 5.0,
    start: float = 1e-5,
    preconditioning: str | None = None,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    sigma_data: float = 0.5,
    beta_min: float = 0.1,
    beta_max: float = 20.0,
) -> Denoising:
    """A time uniform on [``start``, 1] of "vp" or "subvp" with linear betas, or of "ve" from sigma_min to sigma_max.

    ``weight`` is "noise", lambda = std^2; "likelihood", lambda = g^2; or another of the weights by name. The network
    predicts what it does for that process, unless ``preconditioning`` names another.
    """
    betas = linear_betas(beta_min, beta_max)
    processes = {"vp": VP(*betas), "subvp": SubVP(*betas), "ve": VE(*span(sigma_min, sigma_max))}
    if process not in processes:
        raise unknown("process", process, processes)
    if weight not in {"likelihood", *WEIGHTS}:
        raise unknown("weight", weight, ["likelihood", *WEIGHTS])
    chosen = processes[process]
    return Denoising(
        levels=lambda u: uniform_time(u, chosen, start),
        weight=likelihood(chosen) if weight == "likelihood" else weight_called(weight, sigma_data, gamma),
        preconditioning=replace(
            Preconditioning.named(preconditioning or process, sigma_data), beta_min=beta_min, beta_max=beta_max
        ),
    )
