"""Batches over which a weighted sum of losses is an expectation, not an estimate."""

import torch
from oracles import Mixture
from scipy.special import roots_hermitenorm
from torch import Tensor

from cmtool.objectives.objective import Batch

__all__ = ["EPS", "gentle", "quadrature", "two_points"]

EPS = 0.002


def gentle() -> Mixture:
    """A skewed mixture whose consistency function is smooth enough for 24 nodes to give six digits."""
    return Mixture.line((0.4, 0.6), (-0.3, 0.4), (0.4, 0.5))


def quadrature(data: Mixture, n: int = 24) -> tuple[Batch, Tensor]:
    """Images and noise at the nodes of Gauss-Hermite rules, all with u = 1/2, and the weights of the nodes."""
    h, w = (torch.from_numpy(v) for v in roots_hermitenorm(n))
    means = torch.cat([part.mean for part in data.parts])
    stds = torch.cat([part.covariance.flatten() for part in data.parts]).sqrt()
    x = (means[:, None, None] + stds[:, None, None] * h[:, None]).expand(-1, n, n)
    weights = data.log_weights.exp()[:, None, None] * torch.outer(w, w) / w.sum() ** 2
    x, z = x.reshape(-1, 1), h.expand_as(x).reshape(-1, 1)
    return Batch(x, z, torch.full((len(x),), 0.5, dtype=torch.float64)), weights.flatten()


def two_points(u: Tensor, std: float = 0.5) -> Batch:
    """``x = +-std, z = +-1`` at every u: the mean is exact for N(0, std^2) where the loss is quadratic in x and z."""
    signs = torch.tensor([[1, 1], [1, -1], [-1, 1], [-1, -1]], dtype=torch.float64).repeat(len(u), 1)
    return Batch(std * signs[:, :1], signs[:, 1:], u.repeat_interleave(4))
