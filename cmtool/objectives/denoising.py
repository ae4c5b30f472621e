"""The one loss of score models: which levels, how much each counts, what the network predicts.

Score matching, DDPM's simple loss, EDM, flow matching and TrigFlow differ in nothing else.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from cmtool.core.denoiser import Denoise, Preconditioning, like
from cmtool.objectives.objective import Batch, Objective
from cmtool.objectives.weights import Weight

__all__ = ["Denoising", "Levels", "LogVariance", "UncertainDenoising"]

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
        x = batch.x + like(sigma, batch.x) * batch.z
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
