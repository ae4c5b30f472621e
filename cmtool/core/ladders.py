"""Discrete chains as processes: time counts the rungs, 0 is clean data, between rungs noise comes at a constant rate.

At whole times the marginals and transitions are those of the chain, in between those of a diffusion through its rungs.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cmtool.core.process import Process
from cmtool.errors import UsageError

__all__ = ["DDPM", "NCSN"]


def _between(x: Tensor, xs: Tensor, ys: Tensor) -> Tensor:
    """``y(x)`` on the straight lines through the knots; exactly ``ys[i]`` at ``xs[i]``."""
    i = _piece(x, xs)
    xs, ys = xs.to(x), ys.to(x)
    return torch.lerp(ys[i], ys[i + 1], (x - xs[i]) / (xs[i + 1] - xs[i]))


def _piece(x: Tensor, xs: Tensor) -> Tensor:
    """The piece ``(xs[i], xs[i + 1]]`` that holds x; the outer ones have no end."""
    return (torch.searchsorted(xs.to(x), x.contiguous()) - 1).clamp(0, len(xs) - 2)


def _rungs(n: int) -> Tensor:
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
            raise UsageError(
                f"a linear ladder of {n} rungs has steps that leave nothing", f"take more than {beta_max:g}"
            )
        return cls(torch.linspace(beta_min / n, beta_max / n, n, dtype=torch.float64))

    @classmethod
    def cosine(cls, n: int = 1000, shift: float = 0.008, most: float = 0.999) -> "DDPM":
        """``s^2 ~ cos^2(pi/2 (i/n + shift)/(1 + shift))`` with ``beta_i <= most``.

        Source: Nichol and Dhariwal 2021, arXiv 2102.09672, eq. 17.
        """
        kept = torch.cos((_rungs(n) / n + shift) / (1 + shift) * math.pi / 2) ** 2
        return cls((1 - kept[1:] / kept[:-1]).clamp(max=most))

    def __len__(self) -> int:
        return len(self.betas)

    def _integral(self) -> Tensor:
        """``B = -ln s^2`` at the rungs 0 .. N."""
        return torch.cat([self.betas.new_zeros(1), -torch.log1p(-self.betas).cumsum(0)])

    def _spent(self, t: Tensor) -> Tensor:
        return _between(t, _rungs(len(self)), self._integral())

    def _rate(self, t: Tensor) -> Tensor:
        return -torch.log1p(-self.betas).to(t)[_piece(t, _rungs(len(self)))]

    def scale(self, t: Tensor) -> Tensor:
        return (-self._spent(t) / 2).exp()

    def level(self, t: Tensor) -> Tensor:
        return torch.expm1(self._spent(t)).sqrt()

    def time(self, sigma: Tensor) -> Tensor:
        return _between(torch.log1p(sigma**2), self._integral(), _rungs(len(self)))

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
        """N levels equally spaced in ln sigma."""
        return cls(torch.linspace(math.log(sigma_min), math.log(sigma_max), n, dtype=torch.float64).exp())

    def __len__(self) -> int:
        return len(self.sigmas)

    def _variances(self) -> Tensor:
        return torch.cat([self.sigmas.new_zeros(1), self.sigmas**2])

    def scale(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def level(self, t: Tensor) -> Tensor:
        return _between(t, _rungs(len(self)), self._variances()).sqrt()

    def time(self, sigma: Tensor) -> Tensor:
        return _between(sigma**2, self._variances(), _rungs(len(self)))

    def drift(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)

    def diffusion(self, t: Tensor) -> Tensor:
        return self._variances().diff().sqrt().to(t)[_piece(t, _rungs(len(self)))]
