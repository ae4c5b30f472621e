"""Denoising as in EDM (Karras et al. 2022, arXiv 2206.00364, table 1 and eq. 2)."""

from torch import Tensor

from cmtool.core.denoiser import Denoise, like
from cmtool.objectives.levels import log_normal
from cmtool.objectives.objective import Batch, Objective

__all__ = ["Denoising", "edm"]


class Denoising(Objective):
    """``(sigma^2 + sigma_data^2) / (sigma sigma_data)^2 |D(x + sigma z, sigma) - x|^2``, mean over pixels.

    ln sigma is normal. The weight makes the network's own target have unit variance at every level.
    """

    def __init__(self, mean: float, std: float, sigma_data: float):
        super().__init__()
        self.mean, self.std, self.sigma_data = mean, std, sigma_data

    def loss(self, model: Denoise, batch: Batch, progress: float) -> Tensor:
        sigma = log_normal(batch.u, self.mean, self.std)
        x = batch.x + like(sigma, batch.x) * batch.z
        weight = (sigma**2 + self.sigma_data**2) / (sigma * self.sigma_data) ** 2
        error = (model(x, sigma, batch.labels) - batch.x).square().flatten(1).mean(1)
        return weight.to(error) * error


def edm(*, mean: float = -1.2, std: float = 1.2, sigma_data: float = 0.5) -> Objective:
    """Train a denoiser over log-normal noise levels."""
    return Denoising(mean, std, sigma_data)
