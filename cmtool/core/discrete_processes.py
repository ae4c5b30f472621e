"""Discrete-time processes (DDPM, NCSN) as continuous ones, and their noise levels sigma.

Time counts the discretization steps, 0 is clean data; between steps noise comes at a constant rate. At whole times the
marginals and transitions are those of the chain, in between those of a diffusion with the same marginals at its steps.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from cmtool.core.process import Process
from cmtool.errors import UsageError, unknown_name

__all__ = ["BETA_SCHEDULES", "DDPM", "NCSN", "ddpm_sigmas", "geometric_sigmas", "interpolated_step", "nearest_step"]


def _interpolate(x: Tensor, xs: Tensor, ys: Tensor) -> Tensor:
    """``y(x)`` on the straight lines through the knots; exactly ``ys[i]`` at ``xs[i]``."""
    i = _interval(x, xs)
    xs, ys = xs.to(x), ys.to(x)
    return torch.lerp(ys[i], ys[i + 1], (x - xs[i]) / (xs[i + 1] - xs[i]))


def _interval(x: Tensor, xs: Tensor) -> Tensor:
    """The i of the interval ``(xs[i], xs[i + 1]]`` that holds x; the outer intervals have no end."""
    return (torch.searchsorted(xs.to(x), x.contiguous()) - 1).clamp(0, len(xs) - 2)


def _steps(n: int) -> Tensor:
    return torch.arange(n + 1, dtype=torch.float64)


@dataclass(frozen=True, eq=False)
class DDPM(Process):
    """``x_i = sqrt(1 - beta_i) x_{i-1} + sqrt(beta_i) z``, i = 1 .. N; ``betas`` [N] float64.

    ``s^2 = prod (1 - beta_i)`` and ``s^2 (1 + sigma^2) = 1``. Source: Ho et al. 2020, arXiv 2006.11239, eq. 2 and 4.
    """

    betas: Tensor

    @classmethod
    def linear(cls, n: int = 1000, beta_min: float = 0.1, beta_max: float = 20.0) -> "DDPM":
        """``beta_i`` equally spaced from ``beta_min / n`` to ``beta_max / n``; UsageError where one would reach 1."""
        if n <= beta_max:
            raise UsageError(f"a linear DDPM of {n} steps has steps that leave nothing", f"take more than {beta_max:g}")
        return cls(torch.linspace(beta_min / n, beta_max / n, n, dtype=torch.float64))

    @classmethod
    def cosine(cls, n: int = 1000, shift: float = 0.008, most: float = 0.999) -> "DDPM":
        """``s^2 ~ cos^2(pi/2 (i/n + shift)/(1 + shift))`` with ``beta_i <= most``.

        Source: Nichol and Dhariwal 2021, arXiv 2102.09672, eq. 17.
        """
        kept = torch.cos((_steps(n) / n + shift) / (1 + shift) * math.pi / 2) ** 2
        return cls((1 - kept[1:] / kept[:-1]).clamp(max=most))

    def __len__(self) -> int:
        return len(self.betas)

    def _integral(self) -> Tensor:
        """``B = -ln s^2`` at the steps 0 .. N, [N + 1]."""
        return torch.cat([self.betas.new_zeros(1), -torch.log1p(-self.betas).cumsum(0)])

    def _spent(self, t: Tensor) -> Tensor:
        return _interpolate(t, _steps(len(self)), self._integral())

    def _rate(self, t: Tensor) -> Tensor:
        return -torch.log1p(-self.betas).to(t)[_interval(t, _steps(len(self)))]

    def scale(self, t: Tensor) -> Tensor:
        return (-self._spent(t) / 2).exp()

    def sigma(self, t: Tensor) -> Tensor:
        return torch.expm1(self._spent(t)).sqrt()

    def time(self, sigma: Tensor) -> Tensor:
        return _interpolate(torch.log1p(sigma**2), self._integral(), _steps(len(self)))

    def drift(self, t: Tensor) -> Tensor:
        return -self._rate(t) / 2

    def diffusion(self, t: Tensor) -> Tensor:
        return self._rate(t).sqrt()

    def prior(self, t: Tensor) -> Tensor:
        """1, as published; exact for data of unit variance."""
        return torch.ones_like(t)


@dataclass(frozen=True, eq=False)
class NCSN(Process):
    """``x_i = x_{i-1} + sqrt(sigma_i^2 - sigma_{i-1}^2) z``, i = 1 .. N, ``sigma_0 = 0``.

    ``sigmas`` [N] float64, ascending. Source: Song and Ermon 2019, arXiv 1907.05600; as a chain Song et al. 2021,
    arXiv 2011.13456, eq. 8.
    """

    sigmas: Tensor

    @classmethod
    def geometric(cls, n: int = 1000, sigma_min: float = 0.01, sigma_max: float = 50.0) -> "NCSN":
        """N noise levels equally spaced in ln sigma."""
        return cls(torch.linspace(math.log(sigma_min), math.log(sigma_max), n, dtype=torch.float64).exp())

    def __len__(self) -> int:
        return len(self.sigmas)

    def _variances(self) -> Tensor:
        return torch.cat([self.sigmas.new_zeros(1), self.sigmas**2])

    def scale(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return _interpolate(t, _steps(len(self)), self._variances()).sqrt()

    def time(self, sigma: Tensor) -> Tensor:
        return _interpolate(sigma**2, self._variances(), _steps(len(self)))

    def drift(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)

    def diffusion(self, t: Tensor) -> Tensor:
        return self._variances().diff().sqrt().to(t)[_interval(t, _steps(len(self)))]


BETA_SCHEDULES: dict[str, Callable[..., DDPM]] = {"linear": DDPM.linear, "cosine": DDPM.cosine}


def geometric_sigmas(n: int, sigma_min: float, sigma_max: float) -> Tensor:
    """``n`` noise levels in equal ratios (Song and Ermon 2019, arXiv 1907.05600), float64 [n]."""
    if n < 2:
        raise UsageError(f"a chain of noise levels needs 2 or more, not {n}")
    return NCSN.geometric(n, sigma_min, sigma_max).sigmas


def ddpm_sigmas(n: int = 1000, schedule: str = "linear", **options: float) -> Tensor:
    """DDPM's steps as noise levels: ``sigma_i = sqrt(1 / abar_i - 1)``, ``abar_i = prod (1 - beta_j)``, float64 [n].

    ``options`` are ``beta_min`` and ``beta_max`` of the linear one, ``shift`` and ``most`` of the cosine one.
    """
    if schedule not in BETA_SCHEDULES:
        raise unknown_name("schedule", schedule, BETA_SCHEDULES)
    if n <= 20:
        raise UsageError(f"'ddpm' needs more than 20 steps, not {n}", "1000 is usual")
    return BETA_SCHEDULES[schedule](n, **options).sigma(torch.arange(1, n + 1, dtype=torch.float64))


def interpolated_step(sigma: Tensor, sigmas: Tensor) -> Tensor:
    """The number of the step whose noise level is ``sigma`` [...]: 0 for the lowest of ``sigmas`` [n], which ascend.

    Between two steps it is interpolated in ln sigma; beyond the ends it is that of the end.
    """
    known = sigmas.to(sigma).log()
    log_sigma = sigma.log().clamp(known[0], known[-1])
    above = torch.searchsorted(known, log_sigma.contiguous()).clamp(1, len(known) - 1)
    low, high = known[above - 1], known[above]
    return above - 1 + (log_sigma - low) / (high - low)


def nearest_step(sigma: Tensor, sigmas: Tensor) -> Tensor:
    """The number of the step of the nearest noise level, int64, shaped as ``sigma``; ``sigmas`` [n] ascend."""
    middles = sigmas.to(sigma).unfold(0, 2, 1).mean(1)
    return torch.searchsorted(middles, sigma.contiguous())
