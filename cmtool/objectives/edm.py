"""EDM's denoising loss (Karras et al. 2022, arXiv 2206.00364) and EDM2's with uncertainty (arXiv 2312.02696)."""

import math
from typing import Annotated

import torch
from torch import Tensor, nn

from cmtool.core.denoiser import Preconditioning
from cmtool.errors import unknown_name
from cmtool.objectives.denoising import Denoising, UncertainDenoising
from cmtool.objectives.noise_levels import (
    GammaOption,
    LogVariance,
    PMeanOption,
    PStdOption,
    WeightOption,
    log_normal,
    weight_called,
)
from cmtool.objectives.objective import PreconditioningOption, SigmaDataOption
from cmtool.options.plugin_option import Option

__all__ = ["HEADS", "FourierLogVariance", "edm", "edm2"]


def edm(
    *,
    P_mean: PMeanOption = -1.2,
    P_std: PStdOption = 1.2,
    weight: WeightOption = "edm",
    gamma: GammaOption = 5.0,
    preconditioning: PreconditioningOption = "edm",
    sigma_data: SigmaDataOption = 0.5,
) -> Denoising:
    """EDM: denoising at log-normal noise levels.

    Formula: ``loss = w(sigma) |D(x + sigma z, sigma) - x|^2``, ``ln sigma ~ N(P_mean, P_std^2)``
    Paper: Karras et al. 2022, arXiv 2206.00364, section 5 and table 1.
    Use: the score model to start with, and the best teacher for every distillation.

    With the weight "edm" the network's own error counts alike at every noise level.
    """
    return Denoising(
        noise_levels=lambda u: log_normal(u, P_mean, P_std),
        weight=weight_called(weight, sigma_data, gamma),
        preconditioning=Preconditioning.named(preconditioning, sigma_data),
    )


class FourierFeatures(nn.Module):
    """``sqrt(2) cos(f c + p)``, ``f ~ 2 pi N(0, 1)``, ``p ~ U(0, 2 pi)``."""

    freqs: Tensor
    phases: Tensor

    def __init__(self, n: int, generator: torch.Generator):
        super().__init__()
        self.register_buffer("freqs", 2 * math.pi * torch.randn(n, generator=generator))
        self.register_buffer("phases", 2 * math.pi * torch.rand(n, generator=generator))

    def forward(self, c: Tensor) -> Tensor:
        return math.sqrt(2) * (c.to(self.freqs)[:, None] * self.freqs + self.phases).cos()


class UnitLinear(nn.Module):
    """A linear map ``x -> x . w / |w|`` to one number."""

    def __init__(self, n: int, generator: torch.Generator):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(1, n, generator=generator))

    def _unit(self) -> Tensor:
        size = math.sqrt(self.weight.numel())
        return self.weight / (self.weight.norm() / size + 1e-4)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self._unit().squeeze(0) / math.sqrt(self.weight.numel())

    @torch.no_grad()
    def project(self) -> None:
        """Back to mean square 1, before each step."""
        self.weight.copy_(self._unit())


class FourierLogVariance(nn.Module):
    """``u(c)``, c = ln(sigma)/4, linear in ``n`` random waves; its weights are called as in the published files, after
    their ``logvar_``. Source: Karras et al. 2024, arXiv 2312.02696, eq. 75 and appendix B.
    """

    def __init__(self, n: int = 128):
        super().__init__()
        generator = torch.Generator().manual_seed(0)  # the same waves in every run
        self.fourier, self.linear = FourierFeatures(n, generator), UnitLinear(n, generator)

    def forward(self, c: Tensor) -> Tensor:
        return self.linear(self.fourier(c))


HEADS = {"sines": LogVariance, "fourier": FourierLogVariance}


def edm2(
    *,
    P_mean: PMeanOption = -0.8,
    P_std: PStdOption = 1.6,
    weight: WeightOption = "edm",
    gamma: GammaOption = 5.0,
    preconditioning: PreconditioningOption = "edm",
    sigma_data: SigmaDataOption = 0.5,
    head: Annotated[
        str, Option("learned log-variance: 'fourier' is the published one", choices=tuple(HEADS))
    ] = "sines",
) -> UncertainDenoising:
    """EDM2: EDM with a learned weight of each noise level.

    Formula: ``loss = e^-u(sigma) w(sigma) |D(x + sigma z, sigma) - x|^2 + u(sigma)``
    Paper: Karras et al. 2024, arXiv 2312.02696.
    Use: with the network 'edm2', or where noise levels wider than EDM's are wanted.

    Log-normal noise levels, wider than EDM's because what each counts is learned; (-0.4, 1) suits latents. The head
    "sines", of low frequency, starts as 0.
    """
    if head not in HEADS:
        raise unknown_name("head", head, HEADS)
    return UncertainDenoising(
        noise_levels=lambda u: log_normal(u, P_mean, P_std),
        weight=weight_called(weight, sigma_data, gamma),
        preconditioning=Preconditioning.named(preconditioning, sigma_data),
        head=HEADS[head](),
    )
