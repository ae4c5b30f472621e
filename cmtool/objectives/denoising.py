"""The one loss of score models: which noise levels, how much each counts, what the network predicts.

Score matching, DDPM's simple loss, EDM, flow matching and TrigFlow differ in nothing else.
"""

from torch import Tensor, nn

from cmtool.core.denoiser import Denoise, Preconditioning, broadcast_like
from cmtool.objectives.noise_levels import LogVariance, NoiseLevels, Weight
from cmtool.objectives.objective import Batch, Objective, Requirements

__all__ = ["Denoising", "UncertainDenoising"]


class Denoising(Objective):
    """``w(sigma) |D(x + sigma z, sigma) - x|^2``, mean over pixels, with ``sigma = noise_levels(u)``.

    Its minimum is the mean of x_0 given x at every noise level of training, whatever the weight (Vincent 2011).
    """

    def __init__(
        self,
        noise_levels: NoiseLevels,
        weight: Weight,
        preconditioning: Preconditioning,
        requirements: Requirements | None = None,
    ):
        super().__init__(requirements or Requirements("score", preconditioning=preconditioning))
        self.noise_levels, self.weight = noise_levels, weight

    def loss(self, model: Denoise, batch: Batch, progress: float) -> Tensor:
        sigma, error = self._error(model, batch)
        return self.weight(sigma).to(error) * error

    def _error(self, model: Denoise, batch: Batch) -> tuple[Tensor, Tensor]:
        sigma = self.noise_levels(batch.u)
        x = batch.x + broadcast_like(sigma, batch.x) * batch.z
        return sigma, (model(x, sigma, batch.labels) - batch.x).square().flatten(1).mean(1)


class UncertainDenoising(Denoising):
    """``e^-u(sigma) w(sigma) |D - x|^2 + u(sigma)``, with ``u`` trained beside the model and thrown away after it.

    At the minimum ``e^u`` is the mean of ``w |D - x|^2`` at each noise level, so that all of them count alike.
    Source: Karras et al. 2024, arXiv 2312.02696.
    """

    def __init__(
        self,
        noise_levels: NoiseLevels,
        weight: Weight,
        preconditioning: Preconditioning,
        head: nn.Module | None = None,
    ):
        super().__init__(noise_levels, weight, preconditioning)
        self.head = head or LogVariance()

    def trained(self) -> list[nn.Parameter]:
        return list(self.head.parameters())

    def loss(self, model: Denoise, batch: Batch, progress: float) -> Tensor:
        sigma, error = self._error(model, batch)
        u = self.head(sigma.log() / 4).to(error)
        return self.weight(sigma).to(error) * error * (-u).exp() + u
