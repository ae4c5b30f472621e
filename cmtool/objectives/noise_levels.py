"""The distribution of noise levels in training, by one uniform number per image, and their weights."""

from collections.abc import Callable
from typing import Annotated

import torch
from torch import Tensor, nn

from cmtool.core.process import Process
from cmtool.errors import unknown_name
from cmtool.options.plugin_option import Option
from cmtool.options.types import positive

__all__ = [
    "WEIGHTS",
    "GammaOption",
    "LogVariance",
    "NoiseLevels",
    "PMeanOption",
    "PStdOption",
    "Weight",
    "WeightOption",
    "log_normal",
    "split_uniform",
    "uniform_step",
    "uniform_time",
    "weight_called",
]

NoiseLevels = Callable[[Tensor], Tensor]  # u [B] uniform on (0, 1) -> sigma [B]
Weight = Callable[[Tensor], Tensor]  # sigma [B] -> [B]


def split_uniform(u: Tensor, n: int) -> list[Tensor]:
    """``n`` independent uniform numbers from one on (0, 1), float64 [B]: each takes its share of the 52 bits."""
    parts, steps = [], 2 ** (52 // n)
    for _ in range(n):
        scaled = u * steps
        parts.append(((scaled.floor() + 0.5) / steps).to(u))
        u = scaled - scaled.floor()
    return parts


def log_normal(u: Tensor, P_mean: float = -1.2, P_std: float = 1.2) -> Tensor:
    """``ln sigma ~ N(P_mean, P_std^2)`` by inversion, [B] (Karras et al. 2022, arXiv 2206.00364, table 1)."""
    return (P_mean + P_std * torch.special.ndtri(u)).exp()


def uniform_time(u: Tensor, process: Process, start: float, stop: float = 1.0) -> Tensor:
    """The noise level of a time that is uniform on [``start``, ``stop``], [B]."""
    return process.sigma(start + u * (stop - start))


def uniform_step(u: Tensor, sigmas: Tensor) -> Tensor:
    """One of the noise levels of a discrete process, each as likely as the others, [B]."""
    return sigmas.to(u)[(u * len(sigmas)).long().clamp(max=len(sigmas) - 1)]


# Of (sigma, sigma_data, gamma). Predicting something else than x_0 is another weight, so these are losses by name.
WEIGHTS: dict[str, Callable[[Tensor, float, float], Tensor]] = {
    "edm": lambda sigma, d, _: (sigma**2 + d**2) / (sigma * d) ** 2,
    "noise": lambda sigma, d, _: 1 / sigma**2,
    "velocity": lambda sigma, d, _: ((1 + sigma) / sigma) ** 2,
    "min-snr": lambda sigma, d, gamma: (1 / sigma**2).clamp(max=gamma),
    "soft-min-snr": lambda sigma, d, _: 1 / (sigma**2 + d**2),
}

PMeanOption = Annotated[float, Option("mean of ln sigma")]
PStdOption = Annotated[float, Option("standard deviation of ln sigma", positive())]
WeightOption = Annotated[str, Option("weight of a noise level in the loss", choices=tuple(WEIGHTS))]
GammaOption = Annotated[float, Option("largest weight of 'min-snr'", positive())]


def weight_called(name: str, sigma_data: float = 0.5, gamma: float = 5.0) -> Weight:
    """The weight of a noise level called ``name``; UsageError when there is none.

    | name         | w(sigma)                       | it is                                              |
    |--------------|--------------------------------|----------------------------------------------------|
    | edm          | 1 / sigma^2 + 1 / sigma_data^2 | the error of F in "edm" and TrigFlow               |
    | noise        | 1 / sigma^2                    | the error of z: DDPM, score matching with std^2    |
    | velocity     | (1 + 1 / sigma)^2              | the error of z - x_0: flow matching                |
    | min-snr      | min(1 / sigma^2, gamma)        | Hang et al. 2023, arXiv 2303.09556                 |
    | soft-min-snr | 1 / (sigma^2 + sigma_data^2)   | Crowson et al. 2024, arXiv 2401.11605              |
    """
    if name not in WEIGHTS:
        raise unknown_name("weight", name, WEIGHTS)
    return lambda sigma: WEIGHTS[name](sigma, sigma_data, gamma)


class LogVariance(nn.Module):
    """``u(c)``, linear in sines of c = ln(sigma)/4 of ``n`` frequencies from 0.5 to 16; it starts as 0.

    ``e^-u E + u`` is a learned weight of the error E: at its minimum ``e^u`` is the mean of E at each noise level.
    """

    frequencies: Tensor

    def __init__(self, n: int = 32):
        super().__init__()
        self.register_buffer("frequencies", torch.logspace(-0.301, 1.204, n), persistent=False)
        self.linear = nn.Linear(2 * n, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, c: Tensor) -> Tensor:
        angle = c.to(self.frequencies)[:, None] * self.frequencies
        return self.linear(torch.cat([angle.cos(), angle.sin()], 1)).squeeze(1)
