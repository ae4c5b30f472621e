"""The Frechet distance between two Gaussians: the number that is called FID on Inception features."""

from typing import Protocol

import torch
from torch import Tensor

__all__ = ["Gaussian", "frechet_distance"]


class Gaussian(Protocol):
    """What a distribution is reduced to: a mean [D] and a covariance [D, D]."""

    @property
    def mean(self) -> Tensor: ...

    @property
    def covariance(self) -> Tensor: ...


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """The squared 2-Wasserstein distance between the Gaussians N(m_a, S_a) and N(m_b, S_b).

        |m_a - m_b|^2 + tr S_a + tr S_b - 2 tr (S_a S_b)^(1/2)

    The product S_a S_b has the same eigenvalues as L^T S_b L with S_a = L L^T, which is symmetric: they are real and
    not negative, so neither is the trace of the root. Singular covariances (fewer images than features) are fine.
    Dowson and Landau 1982, equation 4; Heusel et al. 2017, arXiv:1706.08500, equation 6.
    """
    mean_a, mean_b, cov_a, cov_b = (t.detach().double().cpu() for t in (a.mean, b.mean, a.covariance, b.covariance))
    shift = (mean_a - mean_b).square().sum()
    spread = cov_a.trace() + cov_b.trace() - 2 * _trace_of_root(cov_a, cov_b)
    return max(0.0, float(shift + spread))


def _trace_of_root(a: Tensor, b: Tensor) -> Tensor:
    """tr (A B)^(1/2) of two covariances."""
    # the thinner root leaves no zero eigenvalues, whose rounding errors a square root would magnify from 1e-16 to 1e-8
    root, other = min((_root(a), b), (_root(b), a), key=lambda pair: pair[0].shape[1])
    return torch.linalg.eigvalsh(root.T @ other @ root).clamp(min=0).sqrt().sum()


def _root(covariance: Tensor) -> Tensor:
    """L [D, rank] with L L^T = S: Cholesky's, or the eigenvectors' where S is singular."""
    factor, failed = torch.linalg.cholesky_ex(covariance)
    if not failed:
        return factor
    values, vectors = torch.linalg.eigh(covariance)
    kept = values > values[-1] * len(values) * torch.finfo(values.dtype).eps
    return vectors[:, kept] * values[kept].sqrt()
