"""Gaussian processes ``x_t = s(t) (x_0 + sigma(t) z)``: changes of coordinates from time to noise level and back.

Divided by ``s`` every process is the same one, ``x = x_0 + sigma z``; what remains is which noise levels are used,
and the native drift ``f = s'/s`` and diffusion ``g = s sqrt(2 sigma sigma')`` of ``dx = f x dt + g dw`` for
integration in native time (Song et al. 2021, arXiv 2011.13456; Karras et al. 2022, arXiv 2206.00364, eq. 4).
"""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

__all__ = ["EDM", "VE", "VP", "FlowMatching", "Process", "SubVP", "TrigFlow"]


class Process(Protocol):
    """All methods are elementwise, on times or noise levels of any shape; the last three follow from the others."""

    def scale(self, t: Tensor) -> Tensor:
        """``s(t)``."""
        ...

    def sigma(self, t: Tensor) -> Tensor:
        """``sigma(t)``, the noise level after dividing by ``s``; increasing."""
        ...

    def time(self, sigma: Tensor) -> Tensor:
        """The inverse of ``sigma``."""
        ...

    def drift(self, t: Tensor) -> Tensor:
        """``f(t) = d ln s / dt``."""
        ...

    def diffusion(self, t: Tensor) -> Tensor:
        """``g(t)``."""
        ...

    def deviation(self, t: Tensor) -> Tensor:
        """``s(t) sigma(t)``: the standard deviation of the noise in ``x_t``."""
        return self.scale(t) * self.sigma(t)

    def prior(self, t: Tensor) -> Tensor:
        """The standard deviation of the Gaussian that stands for ``x_t`` at the last time, data and noise together."""
        return self.deviation(t)

    def transition(self, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """``a = scale(t)/scale(s)`` and ``b = scale(t) sqrt(sigma(t)^2 - sigma(s)^2)`` of ``x_t = a x_s + b z``, s < t.

        In a chain they are DDPM's ``sqrt(alpha_i), sqrt(beta_i)`` and SMLD's ``1, sqrt(sigma_i^2 - sigma_{i-1}^2)``.
        """
        added = (self.sigma(t) ** 2 - self.sigma(s) ** 2).clamp(min=0)
        return self.scale(t) / self.scale(s), self.scale(t) * added.sqrt()


@dataclass(frozen=True)
class EDM(Process):
    """``s = 1``, ``sigma = t`` (Karras et al. 2022): time is the noise level."""

    def scale(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return t

    def time(self, sigma: Tensor) -> Tensor:
        return sigma

    def drift(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)

    def diffusion(self, t: Tensor) -> Tensor:
        return (2 * t).sqrt()


@dataclass(frozen=True)
class VE(Process):
    """``s = 1``, ``sigma = sigma_min (sigma_max / sigma_min)^t``, t in (0, 1] (Song et al. 2021, eq. 30)."""

    sigma_min: float = 0.01
    sigma_max: float = 50.0

    def scale(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return self.sigma_min * (self.sigma_max / self.sigma_min) ** t

    def time(self, sigma: Tensor) -> Tensor:
        return (sigma / self.sigma_min).log() / math.log(self.sigma_max / self.sigma_min)

    def drift(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)

    def diffusion(self, t: Tensor) -> Tensor:
        return self.sigma(t) * math.sqrt(2 * math.log(self.sigma_max / self.sigma_min))


@dataclass(frozen=True)
class VP(Process):
    """``s = exp(-B(t)/2)``, ``s^2 (1 + sigma^2) = 1``, ``B(t) = beta_min t + (beta_max - beta_min) t^2 / 2``.

    t in (0, 1]. Source: Song et al. 2021, eq. 32-33.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    @classmethod
    def spanning(cls, sigma_min: float, sigma_max: float, start: float = 1e-3) -> "VP":
        """The one whose noise level is ``sigma_min`` at the time ``start`` and ``sigma_max`` at 1.

        Its ``beta_min`` may fall a little below 0, which matters before ``start`` alone. Source: Karras et al. 2022,
        arXiv 2206.00364, appendix B.1 and code.
        """
        low, high = math.log1p(sigma_min**2), math.log1p(sigma_max**2)
        slope = 2 * (high - low / start) / (1 - start)
        return cls(high - slope / 2, high + slope / 2)

    def _integral(self, t: Tensor) -> Tensor:
        return self.beta_min * t + (self.beta_max - self.beta_min) * t**2 / 2

    def _beta(self, t: Tensor) -> Tensor:
        return self.beta_min + (self.beta_max - self.beta_min) * t

    def _time_of(self, integral: Tensor) -> Tensor:
        slope, low = self.beta_max - self.beta_min, self.beta_min
        root = (low**2 + 2 * slope * integral).sqrt()
        t = 2 * integral / (low + root) if low > 0 else (root - low) / slope  # neither loses digits to a difference
        return torch.where(integral > 0, t, torch.zeros_like(t))

    def scale(self, t: Tensor) -> Tensor:
        return (-self._integral(t) / 2).exp()

    def sigma(self, t: Tensor) -> Tensor:
        return torch.expm1(self._integral(t)).sqrt()

    def time(self, sigma: Tensor) -> Tensor:
        return self._time_of(torch.log1p(sigma**2))

    def drift(self, t: Tensor) -> Tensor:
        return -self._beta(t) / 2

    def diffusion(self, t: Tensor) -> Tensor:
        return self._beta(t).sqrt()

    def prior(self, t: Tensor) -> Tensor:
        """1, as published; exact for data of unit variance."""
        return torch.ones_like(t)


@dataclass(frozen=True)
class SubVP(VP):
    """The scale of VP with less noise, ``s sigma = 1 - s^2``: ``sigma = 2 sinh(B(t)/2)`` (Song et al. 2021, eq. 34)."""

    def sigma(self, t: Tensor) -> Tensor:
        return 2 * torch.sinh(self._integral(t) / 2)

    def time(self, sigma: Tensor) -> Tensor:
        return self._time_of(2 * torch.asinh(sigma / 2))

    def diffusion(self, t: Tensor) -> Tensor:
        return (self._beta(t) * -torch.expm1(-2 * self._integral(t))).sqrt()


@dataclass(frozen=True)
class FlowMatching(Process):
    """``x_t = (1 - t) x_0 + t z``: ``s = 1 - t``, ``sigma = t / (1 - t)``, t in [0, 1).

    Source: Lipman et al. 2023, arXiv 2210.02747.
    """

    def scale(self, t: Tensor) -> Tensor:
        return 1 - t

    def sigma(self, t: Tensor) -> Tensor:
        return t / (1 - t)

    def time(self, sigma: Tensor) -> Tensor:
        return sigma / (1 + sigma)

    def drift(self, t: Tensor) -> Tensor:
        return -1 / (1 - t)

    def diffusion(self, t: Tensor) -> Tensor:
        return (2 * t / (1 - t)).sqrt()


@dataclass(frozen=True)
class TrigFlow(Process):
    """``x_t = cos(t) x_0 + sin(t) sigma_data z``: ``s = cos t``, ``sigma = sigma_data tan t``, t in [0, pi/2).

    Source: Lu and Song 2024, arXiv 2410.11081, section 3.
    """

    sigma_data: float = 0.5

    def scale(self, t: Tensor) -> Tensor:
        return t.cos()

    def sigma(self, t: Tensor) -> Tensor:
        return self.sigma_data * t.tan()

    def time(self, sigma: Tensor) -> Tensor:
        return (sigma / self.sigma_data).atan()

    def drift(self, t: Tensor) -> Tensor:
        return -t.tan()

    def diffusion(self, t: Tensor) -> Tensor:
        return self.sigma_data * (2 * t.tan()).sqrt()
