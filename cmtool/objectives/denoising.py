"""The one loss of score models: which noise levels, how much each counts, what the network predicts.

Score matching, DDPM's simple loss, EDM, flow matching and TrigFlow differ in nothing else.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from cmtool.core.denoiser import Denoise, Preconditioning, broadcast_like
from cmtool.errors import unknown_name
from cmtool.objectives.objective import Batch, Objective

__all__ = ["WEIGHTS", "Denoising", "Levels", "LogVariance", "UncertainDenoising", "Weight", "weight_called"]


Weight = Callable[[Tensor], Tensor]  # sigma [B] -> [B]

# Of (sigma, sigma_data, gamma). Predicting something else than x_0 is another weight, so these are losses by name.
WEIGHTS: dict[str, Callable[[Tensor, float, float], Tensor]] = {
    "edm": lambda sigma, d, _: (sigma**2 + d**2) / (sigma * d) ** 2,
    "noise": lambda sigma, d, _: 1 / sigma**2,
    "velocity": lambda sigma, d, _: ((1 + sigma) / sigma) ** 2,
    "min-snr": lambda sigma, d, gamma: (1 / sigma**2).clamp(max=gamma),
    "soft-min-snr": lambda sigma, d, _: 1 / (sigma**2 + d**2),
}


def weight_called(name: str, sigma_data: float = 0.5, gamma: float = 5.0) -> Weight:
    """The weight called ``name``; UsageError when there is none.

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


Levels = Callable[[Tensor], Tensor]  # u [B] uniform on (0, 1) -> sigma [B]


class Denoising(Objective):
    """``w(sigma) |D(x + sigma z, sigma) - x|^2``, mean over pixels, with ``sigma = levels(u)``.

    Its minimum is the mean of x_0 given x at every level that is visited, whatever the weight (Vincent 2011).
    """

    def __init__(self, levels: Levels, weight: Weight, preconditioning: Preconditioning):
        super().__init__()
        self.levels, self.weight, self.preconditioning = levels, weight, preconditioning

    def loss(self, model: Denoise, batch: Batch, progress: float) -> Tensor:
        sigma, error = self._error(model, batch)
        return self.weight(sigma).to(error) * error

    def _error(self, model: Denoise, batch: Batch) -> tuple[Tensor, Tensor]:
        sigma = self.levels(batch.u)
        x = batch.x + broadcast_like(sigma, batch.x) * batch.z
        return sigma, (model(x, sigma, batch.labels) - batch.x).square().flatten(1).mean(1)


class LogVariance(nn.Module):
    """``u(c)``, linear in sines of c = ln(sigma)/4 of ``n`` frequencies from 0.5 to 16; it starts as 0."""

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


class UncertainDenoising(Denoising):
    """``e^-u(sigma) w(sigma) |D - x|^2 + u(sigma)``, with ``u`` trained beside the model and thrown away after it.

    At the minimum ``e^u`` is the mean of ``w |D - x|^2`` at each level, so that all levels count alike.
    Source: Karras et al. 2024, arXiv 2312.02696.
    """

    def __init__(self, levels: Levels, weight: Weight, preconditioning: Preconditioning, head: nn.Module | None = None):
        super().__init__(levels, weight, preconditioning)
        self.head = head or LogVariance()

    def trained(self) -> list[nn.Parameter]:
        return list(self.head.parameters())

    def loss(self, model: Denoise, batch: Batch, progress: float) -> Tensor:
        sigma, error = self._error(model, batch)
        u = self.head(sigma.log() / 4).to(error)
        return self.weight(sigma).to(error) * error * (-u).exp() + u
