"""Score matching: dsm on the SDEs of Song et al. 2021, ddpm, ncsn, and sliced score matching (ssm).

Sources: arXiv 2011.13456, eq. 7; Ho et al. 2020, arXiv 2006.11239, eq. 14; Song and Ermon 2019, arXiv 1907.05600,
eq. 6; Song et al. 2019, arXiv 1905.07088, eq. 8.
"""

from dataclasses import replace
from typing import Annotated

import torch
from torch import Tensor

from cmtool.core import discrete_processes
from cmtool.core.denoiser import Denoise, Preconditioning, broadcast_like
from cmtool.core.discrete_processes import geometric_sigmas
from cmtool.core.named_processes import linear_betas, span
from cmtool.core.process import VE, VP, Process, SubVP
from cmtool.errors import UsageError, unknown_name
from cmtool.objectives.denoising import Denoising
from cmtool.objectives.noise_levels import (
    WEIGHTS,
    GammaOption,
    NoiseLevels,
    PMeanOption,
    PStdOption,
    Weight,
    WeightOption,
    log_normal,
    uniform_step,
    uniform_time,
    weight_called,
)
from cmtool.objectives.objective import (
    Batch,
    PreconditioningOption,
    Requirements,
    SigmaDataOption,
    SigmaMaxOption,
    SigmaMinOption,
)
from cmtool.options.plugin_option import Option
from cmtool.options.types import at_least, between, positive

__all__ = ["SlicedScoreMatching", "ddpm", "dsm", "likelihood", "ncsn", "ssm"]

BetaMinOption = Annotated[float, Option("beta at time 0 of VP, sub-VP and the linear schedule", positive())]
BetaMaxOption = Annotated[float, Option("beta at time 1", positive())]


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
    process: Annotated[str, Option("the SDE", choices=("vp", "subvp", "ve"))] = "vp",
    weight: Annotated[str, Option("weight of a noise level in the loss", choices=("likelihood", *WEIGHTS))] = "noise",
    gamma: GammaOption = 5.0,
    start: Annotated[float, Option("first time that is trained", between(0, 1))] = 1e-5,
    preconditioning: Annotated[str | None, Option("what the network predicts; by default that of the process")] = None,
    sigma_min: SigmaMinOption = 0.002,
    sigma_max: SigmaMaxOption = 80.0,
    sigma_data: SigmaDataOption = 0.5,
    beta_min: BetaMinOption = 0.1,
    beta_max: BetaMaxOption = 20.0,
) -> Denoising:
    """Denoising score matching on the SDEs VP, sub-VP and VE, at uniform times.

    Formula: ``loss = lambda(t) |s(x_t, t) + z / std_t|^2``
    Paper: Song et al. 2021, arXiv 2011.13456, eq. 7.
    Use: for a score model of one of these processes.

    VP and sub-VP have linear betas, VE goes from sigma_min to sigma_max. The weight "noise" is lambda = std^2,
    "likelihood" is lambda = g^2.
    """
    betas = linear_betas(beta_min, beta_max)
    processes = {"vp": VP(*betas), "subvp": SubVP(*betas), "ve": VE(*span(sigma_min, sigma_max))}
    if process not in processes:
        raise unknown_name("process", process, processes)
    if weight not in {"likelihood", *WEIGHTS}:
        raise unknown_name("weight", weight, ["likelihood", *WEIGHTS])
    chosen = processes[process]
    return Denoising(
        noise_levels=lambda u: uniform_time(u, chosen, start),
        weight=likelihood(chosen) if weight == "likelihood" else weight_called(weight, sigma_data, gamma),
        preconditioning=replace(
            Preconditioning.named(preconditioning or process, sigma_data), beta_min=beta_min, beta_max=beta_max
        ),
    )


def ddpm(
    *,
    steps: Annotated[int, Option("steps of the discrete process", at_least(2))] = 1000,
    schedule: Annotated[str, Option("schedule of the betas", choices=("linear", "cosine"))] = "linear",
    weight: WeightOption = "noise",
    gamma: GammaOption = 5.0,
    preconditioning: PreconditioningOption = "ddpm",
    sigma_data: SigmaDataOption = 0.5,
    beta_min: BetaMinOption = 0.1,
    beta_max: BetaMaxOption = 20.0,
) -> Denoising:
    """DDPM's simple loss: the noise is predicted at one of the steps of a discrete process.

    Formula: ``loss = |eps(x_i, i) - z|^2``, i uniform
    Paper: Ho et al. 2020, arXiv 2006.11239, eq. 14.
    Use: for a score model that DDPM's samplers can use.

    The linear betas go from ``beta_min / steps`` to ``beta_max / steps``.
    """
    betas = dict(zip(("beta_min", "beta_max"), linear_betas(beta_min, beta_max), strict=True))
    sigmas = discrete_processes.ddpm_sigmas(steps, schedule, **(betas if schedule == "linear" else {}))
    return Denoising(
        noise_levels=lambda u: uniform_step(u, sigmas),
        weight=weight_called(weight, sigma_data, gamma),
        preconditioning=replace(Preconditioning.named(preconditioning, sigma_data), **betas),
    )


def ncsn(
    *,
    steps: Annotated[int, Option("noise levels", at_least(2))] = 232,
    weight: WeightOption = "noise",
    gamma: GammaOption = 5.0,
    preconditioning: PreconditioningOption = "ve",
    sigma_min: SigmaMinOption = 0.002,
    sigma_max: SigmaMaxOption = 80.0,
    sigma_data: SigmaDataOption = 0.5,
) -> Denoising:
    """Noise-conditional score network: score matching at the noise levels of a geometric sequence.

    Formula: ``loss = sigma^2 |s(x + sigma z, sigma) + z / sigma|^2``, sigma one of the sequence, uniformly
    Paper: Song and Ermon 2019, arXiv 1907.05600, eq. 6.
    Use: for annealed Langevin dynamics.
    """
    sigmas = geometric_sigmas(steps, sigma_min, sigma_max)
    return Denoising(
        noise_levels=lambda u: uniform_step(u, sigmas),
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

    def __init__(
        self,
        noise_levels: NoiseLevels,
        weight: Weight,
        preconditioning: Preconditioning,
        directions: str = "rademacher",
    ):
        requirements = Requirements("score", preconditioning=preconditioning, probes=True, differentiates_twice=True)
        super().__init__(noise_levels, weight, preconditioning, requirements)
        if directions not in DIRECTIONS:
            raise unknown_name("distribution of directions", directions, DIRECTIONS)
        self.direction = DIRECTIONS[directions]

    def loss(self, model: Denoise, batch: Batch, progress: float) -> Tensor:
        if batch.v is None:
            raise UsageError("sliced score matching needs random directions, and the batch has none")
        sigma, v = self.noise_levels(batch.u), self.direction(batch.v)
        x = (batch.x + broadcast_like(sigma, batch.x) * batch.z).requires_grad_()
        denoised = model(x, sigma, batch.labels)
        (gradient,) = torch.autograd.grad((denoised * v).sum(), x, create_graph=True)
        norm, along = (denoised - x.detach()).square() / 2, gradient * v - v.square()
        return (broadcast_like(self.weight(sigma), x) * (norm + broadcast_like(sigma**2, x) * along)).flatten(1).mean(1)


def ssm(
    *,
    P_mean: PMeanOption = -1.2,
    P_std: PStdOption = 1.2,
    weight: WeightOption = "edm",
    gamma: GammaOption = 5.0,
    directions: Annotated[str, Option("distribution of v", choices=tuple(DIRECTIONS))] = "rademacher",
    preconditioning: PreconditioningOption = "edm",
    sigma_data: SigmaDataOption = 0.5,
) -> SlicedScoreMatching:
    """Sliced score matching: the score of noisy images without a look at the clean ones.

    Formula: ``loss = w(sigma) sigma^4 (|s|^2 / 2 + v^T grad(v^T s))``, v a random direction
    Paper: Song et al. 2019, arXiv 1905.07088, eq. 8.
    Use: to compare with; 'edm' has less variance and is cheaper.
    """
    return SlicedScoreMatching(
        lambda u: log_normal(u, P_mean, P_std),
        weight_called(weight, sigma_data, gamma),
        Preconditioning.named(preconditioning, sigma_data),
        directions=directions,
    )
