"""Data whose denoiser, score, probability flow and consistency function are known exactly, in float64.

Everything lives at noise level sigma, ``x = x_0 + sigma z``; another process is this one after a change of
coordinates, ``x_t = s (x_0 + sigma z)``. Called as ``data(x, sigma)`` an oracle is a perfect score model;
``data.student(sigma_min)`` is a perfect consistency model.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

__all__ = ["AnisotropicGaussian", "Gaussian", "Mixture", "Oracle", "derivative", "golden_line"]

Level = Tensor | float


def like(sigma: Level, x: Tensor) -> Tensor:
    """``sigma``, a number or one per point, shaped to multiply ``x`` [B, ...] in float64."""
    sigma = torch.as_tensor(sigma, dtype=torch.float64, device=x.device)
    return sigma.reshape(-1, *[1] * (x.dim() - 1)) if sigma.dim() else sigma


def derivative(function: Callable[[Tensor], Tensor], t: Tensor) -> tuple[Tensor, Tensor]:
    """A function that acts on each number of ``t`` alone (rows of its value included), with its derivative there."""
    with torch.enable_grad():
        t = t.detach().requires_grad_()
        value = function(t) + 0 * t.reshape(-1, *[1] * (function(t).dim() - 1))  # constants are functions too
    (slope,) = torch.autograd.grad(value.sum(), t)
    return value.detach(), slope


class Oracle:
    """What follows from ``denoiser``, ``flow`` and ``log_density``, whatever the data."""

    def denoiser(self, x: Tensor, sigma: Level) -> Tensor:
        """``E[x_0 | x]`` at noise level ``sigma``."""
        raise NotImplementedError

    def flow(self, x: Tensor, t: Level, s: Level) -> Tensor:
        """Where ``dx/dsigma = (x - D(x, sigma)) / sigma`` leads from ``x`` at level ``t``: the point at level ``s``."""
        raise NotImplementedError

    def log_density(self, x: Tensor, sigma: Level) -> Tensor:
        """``log p(x; sigma)``, natural logarithm, one number per point."""
        raise NotImplementedError

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """``n`` points without noise."""
        raise NotImplementedError

    def score(self, x: Tensor, sigma: Level) -> Tensor:
        """``grad_x log p(x; sigma) = (D - x) / sigma^2`` (Vincent 2011; Karras et al. 2022, eq. 3)."""
        return (self.denoiser(x, sigma) - x.double()) / like(sigma, x) ** 2

    def noisy(self, n: int, sigma: float, generator: torch.Generator) -> Tensor:
        """``n`` points of the marginal at ``sigma``."""
        x = self.sample(n, generator)
        return x + sigma * torch.randn(x.shape, generator=generator, dtype=torch.float64)

    def consistency(self, x: Tensor, sigma: Level, sigma_min: float) -> Tensor:
        """``f(x, sigma)``, the end of the trajectory through ``x`` at ``sigma_min``."""
        return self.flow(x, sigma, sigma_min)

    def __call__(self, x: Tensor, sigma: Level, labels: Tensor | None = None) -> Tensor:
        return self.denoiser(x, sigma)

    def student(self, sigma_min: float):
        """The exact consistency model, callable as ``model(x, sigma, labels)``."""
        return lambda x, sigma, labels=None: self.consistency(x, sigma, sigma_min)

    def flow_map(
        self, x: Tensor, sigma: Level, labels: Tensor | None = None, target_sigma: Tensor | None = None
    ) -> Tensor:
        """A perfect flow map's g: the image with which ``(s/t) x + (1 - s/t) g`` is the flow from t to s."""
        ratio = 0 * like(sigma, x) if target_sigma is None else like(target_sigma / sigma, x)
        jumped = (self.flow(x, sigma, ratio.flatten() * sigma) - ratio * x) / (1 - ratio).clamp(min=1e-300)
        return torch.where(ratio < 1, jumped, self.denoiser(x, sigma))


class Gaussian(Oracle):
    """``N(mean, std^2 I)`` on tensors [B, ...] of any shape; ``std`` 0 is a point mass."""

    def __init__(self, mean: Tensor | float = 0.0, std: float = 0.5):
        self.mean, self.std = torch.as_tensor(mean, dtype=torch.float64), std

    def denoiser(self, x: Tensor, sigma: Level) -> Tensor:
        return self.mean + self.std**2 / (self.std**2 + like(sigma, x) ** 2) * (x - self.mean)

    def flow(self, x: Tensor, t: Level, s: Level) -> Tensor:
        ratio = (self.std**2 + like(s, x) ** 2) / (self.std**2 + like(t, x) ** 2)
        return self.mean + ratio.sqrt() * (x - self.mean)

    def log_density(self, x: Tensor, sigma: Level) -> Tensor:
        variance = self.std**2 + like(sigma, x) ** 2
        return -((x - self.mean) ** 2 / variance + (2 * math.pi * variance).log()).flatten(1).sum(1) / 2

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        return self.mean + self.std * torch.randn(n, *self.mean.shape, generator=generator, dtype=torch.float64)


class AnisotropicGaussian(Oracle):
    """``N(mean [D], covariance [D, D])`` on points [B, D]: a Gaussian along every eigenvector."""

    def __init__(self, mean: Tensor | Sequence[float], covariance: Tensor | Sequence[Sequence[float]]):
        self.mean = torch.as_tensor(mean, dtype=torch.float64)
        self.covariance = torch.as_tensor(covariance, dtype=torch.float64)
        self.values, self.vectors = torch.linalg.eigh(self.covariance)

    def along(self, x: Tensor, factor: Tensor) -> Tensor:
        """``x - mean`` with each eigen-coordinate multiplied by ``factor``."""
        return ((x - self.mean) @ self.vectors * factor) @ self.vectors.T

    def variances(self, x: Tensor, sigma: Level) -> Tensor:
        return self.values + like(sigma, x) ** 2

    def denoiser(self, x: Tensor, sigma: Level) -> Tensor:
        return self.mean + self.along(x, self.values / self.variances(x, sigma))

    def score(self, x: Tensor, sigma: Level) -> Tensor:
        return -self.along(x, 1 / self.variances(x, sigma))

    def flow(self, x: Tensor, t: Level, s: Level) -> Tensor:
        return self.mean + self.along(x, (self.variances(x, s) / self.variances(x, t)).sqrt())

    def log_density(self, x: Tensor, sigma: Level) -> Tensor:
        variances = self.variances(x, sigma)
        return -(((x - self.mean) @ self.vectors) ** 2 / variances + (2 * math.pi * variances).log()).sum(-1) / 2

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        z = torch.randn(n, len(self.mean), generator=generator, dtype=torch.float64)
        return self.mean + z * self.values.sqrt() @ self.vectors.T


class Mixture(Oracle):
    """``sum_k weights[k] N(means[k], covariances[k])`` on points [B, D].

    The flow has no closed form. On a line it preserves the distribution function, ``F_s(x_s) = F_t(x_t)``, which is
    solved to the last bit; in the plane and beyond it is integrated with scipy's DOP853 at 1e-12.
    """

    def __init__(self, weights: Sequence[float], means: Sequence, covariances: Sequence):
        self.log_weights = torch.as_tensor(weights, dtype=torch.float64).log()
        self.parts = [AnisotropicGaussian(m, c) for m, c in zip(means, covariances, strict=True)]

    @classmethod
    def line(cls, weights: Sequence[float], means: Sequence[float], stds: Sequence[float]) -> "Mixture":
        """A one-dimensional mixture; its points are [B, 1]."""
        return cls(weights, [[m] for m in means], [[[s**2]] for s in stds])

    @property
    def mean(self) -> Tensor:
        return sum(w * p.mean for w, p in zip(self.log_weights.exp(), self.parts, strict=True))

    @property
    def covariance(self) -> Tensor:
        spread = [p.covariance + torch.outer(p.mean - self.mean, p.mean - self.mean) for p in self.parts]
        return sum(w * c for w, c in zip(self.log_weights.exp(), spread, strict=True))

    def joint(self, x: Tensor, sigma: Level) -> Tensor:
        return self.log_weights + torch.stack([p.log_density(x, sigma) for p in self.parts], -1)

    def average(self, values: list[Tensor], x: Tensor, sigma: Level) -> Tensor:
        """The mean of ``values`` [B, D], one a component, under ``p(component | x)``."""
        return (self.joint(x, sigma).softmax(-1)[..., None, :] * torch.stack(values, -1)).sum(-1)

    def denoiser(self, x: Tensor, sigma: Level) -> Tensor:
        return self.average([p.denoiser(x, sigma) for p in self.parts], x, sigma)

    def score(self, x: Tensor, sigma: Level) -> Tensor:
        return self.average([p.score(x, sigma) for p in self.parts], x, sigma)

    def log_density(self, x: Tensor, sigma: Level) -> Tensor:
        return self.joint(x, sigma).logsumexp(-1)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        chosen = torch.multinomial(self.log_weights.exp(), n, replacement=True, generator=generator)
        drawn = torch.stack([p.sample(n, generator) for p in self.parts])
        return drawn[chosen, torch.arange(n)]

    def flow(self, x: Tensor, t: Level, s: Level) -> Tensor:
        return self.match(x, t, s) if len(self.mean) == 1 else self.integrate(x, t, s)

    def log_tails(self, x: Tensor, sigma: Level) -> tuple[Tensor, Tensor]:
        """``log F(x)`` and ``log (1 - F(x))`` of the one-dimensional marginal."""
        z = torch.cat([(x - p.mean) / p.variances(x, sigma).sqrt() for p in self.parts], -1)
        lower, upper = torch.special.log_ndtr(z), torch.special.log_ndtr(-z)
        return tuple((self.log_weights + tail).logsumexp(-1, keepdim=True) for tail in (lower, upper))

    def cdf(self, x: Tensor, sigma: Level) -> Tensor:
        """``F(x)`` of the one-dimensional marginal at ``sigma``."""
        return self.log_tails(x, sigma)[0].exp()

    def match(self, x: Tensor, t: Level, s: Level) -> Tensor:
        x = x.double()
        below, above = self.log_tails(x, t)
        means = torch.stack([p.mean for p in self.parts])
        z = torch.stack([(x - p.mean).abs() / p.variances(x, t).sqrt() for p in self.parts]).amax(0)
        reach = z * torch.stack([p.variances(x, s).sqrt().expand_as(x) for p in self.parts]).amax(0)
        low, high = means.min() - reach, means.max() + reach
        for _ in range(80):
            middle = (low + high) / 2
            left, right = self.log_tails(middle, s)
            short = torch.where(below < above, left < below, right > above)  # the smaller tail has all its digits
            low, high = torch.where(short, middle, low), torch.where(short, high, middle)
        return (low + high) / 2

    def integrate(self, x: Tensor, t: Level, s: Level) -> Tensor:
        spans = torch.stack([torch.as_tensor(v, dtype=torch.float64).expand(len(x)) for v in (t, s)], 1)
        out = x.double().clone()
        for span in spans.unique(dim=0):
            chosen = (spans == span).all(1)
            out[chosen] = self.trajectories(out[chosen], *span.tolist())
        return out

    def trajectories(self, x: Tensor, t: float, s: float) -> Tensor:
        """``dx/dsigma = -sigma score(x, sigma)``, which stays smooth down to sigma = 0."""

        def field(sigma: float, flat: np.ndarray) -> np.ndarray:
            return -sigma * self.score(torch.from_numpy(flat).reshape(x.shape), sigma).flatten().numpy()

        solution = solve_ivp(field, (t, s), x.flatten().numpy(), method="DOP853", rtol=1e-12, atol=1e-13)
        return torch.from_numpy(solution.y[:, -1].copy()).reshape(x.shape)


def golden_line() -> Mixture:
    """The one-dimensional mixture of two Gaussians on which orders and trajectories were measured."""
    return Mixture.line((0.3, 0.7), (-1.0, 0.5), (0.2, 0.4))
