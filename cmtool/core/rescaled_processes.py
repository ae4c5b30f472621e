"""Noise schedules and scalings that go together freely, as in the ablations of Karras et al. 2022 (arXiv 2206.00364).

The noise level as a function of time and the scale that multiplies the image are two choices: the trajectories are the
same, the steps of a solver in native time are not (ibid., table 1 and appendix B).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from cmtool.core.process import Process

__all__ = ["SCALINGS", "RescaledProcess", "SquareRoot", "rescale_process"]

SCALINGS = ("own", "vp", "none")


@dataclass(frozen=True)
class SquareRoot(Process):
    """``s = 1``, ``sigma = sqrt(t)``: the variance-exploding schedule of Karras et al. 2022, table 1."""

    def scale(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return t.sqrt()

    def time(self, sigma: Tensor) -> Tensor:
        return sigma**2

    def drift(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)

    def diffusion(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)


@dataclass(frozen=True)
class RescaledProcess(Process):
    """The noise levels of ``schedule`` with ``s = 1 / sqrt(1 + sigma^2)``, for unit variance, or with ``s = 1``."""

    schedule: Process
    unit: bool

    def scale(self, t: Tensor) -> Tensor:
        return (1 + self.sigma(t) ** 2).rsqrt() if self.unit else torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return self.schedule.sigma(t)

    def time(self, sigma: Tensor) -> Tensor:
        return self.schedule.time(sigma)

    def _growth(self, t: Tensor) -> Tensor:
        """``sigma sigma'``, which no scale changes."""
        return (self.schedule.diffusion(t) / self.schedule.scale(t)) ** 2 / 2

    def drift(self, t: Tensor) -> Tensor:
        return -self._growth(t) * self.scale(t) ** 2 if self.unit else torch.zeros_like(t)

    def diffusion(self, t: Tensor) -> Tensor:
        return self.scale(t) * (2 * self._growth(t)).sqrt()

    def prior(self, t: Tensor) -> Tensor:
        return torch.ones_like(t) if self.unit else self.deviation(t)


def rescale_process(process: Process, scaling: str) -> Process:
    """``process`` under the scaling "vp" or "none", or as it is under "own"."""
    return process if scaling == "own" else RescaledProcess(process, scaling == "vp")
