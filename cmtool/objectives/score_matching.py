"""Score matching: dsm on the SDEs of Song et al. 2021, ddpm, ncsn, and sliced score matching (ssm).

Sources: arXiv 2011.13456, eq. 7; Ho et al. 2020, arXiv 2006.11239, eq. 14; Song and Ermon 2019, arXiv 1907.05600,
eq. 6; Song et al. 2019, arXiv 1905.07088, eq. 8.
"""

from dataclasses import replace

import torch
from torch import Tensor

from cmtool.core import discrete_processes
from cmtool.core.denoiser import Denoise, Preconditioning, broadcast_like
from cmtool.core.discrete_processes import geometric_sigmas
from cmtool.core.named_processes import linear_betas, span
from cmtool.core.process import VE, VP, Process, SubVP
from cmtool.errors import UsageError, unknown_name
from cmtool.objectives.denoising import WEIGHTS, Denoising, Weight, weight_called
from cmtool.objectives.noise_levels import log_normal, uniform_step, uniform_time
from cmtool.objectives.objective import Batch

__all__ = ["SlicedScoreMatching", "ddpm", "dsm", "likelihood", "ncsn", "ssm"]


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
        raise unknown_name("process", process, processes)
    if weight not in {"likelihood", *WEIGHTS}:
        raise unknown_name("weight", weight, ["likelihood", *WEIGHTS])
    chosen = processes[process]
    return Denoising(
        levels=lambda u: uniform_time(u, chosen, start),
        weight=likelihood(chosen) if weight == "likelihood" else weight_called(weight, sigma_data, gamma),
        preconditioning=replace(
            Preconditioning.named(preconditioning or process, sigma_data), beta_min=beta_min, beta_max=beta_max
        ),
    )


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
    ladder = discrete_processes.ddpm_sigmas(steps, schedule, **(betas if schedule == "linear" else {}))
    return Denoising(
        levels=lambda u: uniform_step(u, ladder),
        weight=weight_called(weight, sigma_data, gamma),
        preconditioning=replace(Preconditioning.named(preconditioning, sigma_data), **betas),
    )


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
    ladder = geometric_sigmas(steps, sigma_min, sigma_max)
    return Denoising(
        levels=lambda u: uniform_step(u, ladder),
        weight=weight_called(weight, sigma_data, gamma),
        preconditioning=Preconditioning.named(preconditioning, sigma_data),
    )


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
            raise unknown_name("distribution of directions", directions, DIRECTIONS)
        self.direction = DIRECTIONS[directions]

    def loss(self, model: Denoise, batch: Batch, progress: float) -> Tensor:
        if batch.v is None:
            raise UsageError("sliced score matching needs random directions, and the batch has none")
        sigma, v = self.levels(batch.u), self.direction(batch.v)
        x = (batch.x + broadcast_like(sigma, batch.x) * batch.z).requires_grad_()
        denoised = model(x, sigma, batch.labels)
        (slope,) = torch.autograd.grad((denoised * v).sum(), x, create_graph=True)
        norm, along = (denoised - x.detach()).square() / 2, slope * v - v.square()
        return (broadcast_like(self.weight(sigma), x) * (norm + broadcast_like(sigma**2, x) * along)).flatten(1).mean(1)


def ssm(
    *,
    P_mean: float = -1.2,
    P_std: float = 1.2,
    weight: str = "edm",
    gamma: float = 5.0,
    directions: str = "rademacher",
    preconditioning: str = "edm",
    sigma_data: float = 0.5,
) -> SlicedScoreMatching:
    """Log-normal levels; ``directions`` are "rademacher" or "gaussian"."""
    return SlicedScoreMatching(
        lambda u: log_normal(u, P_mean, P_std),
        weight_called(weight, sigma_data, gamma),
        Preconditioning.named(preconditioning, sigma_data),
        directions=directions,
    )
