"""The Frechet distance between two Gaussians (FID on Inception features), and their moments in one pass."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from cmtool.errors import Diverged, UsageError
from cmtool.evaluation.metric import SPATIAL, Comparison, Metric, Score
from cmtool.evaluation.statistics import Gaussian

__all__ = ["Moments", "fid", "frechet_distance", "is_covariance", "sfid"]


BLOCK = 512  # rows that are added at once


class Moments:
    """Mean and unbiased covariance of all the rows seen so far, the same bits whatever the batches they came in.

    Two sets with sizes n_a, n_b, means m_a, m_b and scatters M_a, M_b (M = sum (x - m)(x - m)^T) have together

        m = m_a + (n_b / n) d,    M = M_a + M_b + (n_a n_b / n) d d^T,    d = m_b - m_a,    n = n_a + n_b

    and the covariance is M / (n - 1). Sums of centred numbers lose no digits, where sum x x^T - n m m^T would.
    Chan, Golub and LeVeque 1983, "Algorithms for Computing the Sample Variance", equations 2.1.
    """

    def __init__(self):
        self.sums = Sums(0, torch.zeros(0, dtype=torch.float64), torch.zeros(0, 0, dtype=torch.float64))
        self.rest: Tensor | None = None  # rows that do not fill a block yet

    def update(self, features: Tensor) -> None:
        """Add the rows of ``features`` [B, D], on their own device; Diverged when one is not finite."""
        rows = features.detach().double()
        if not rows.isfinite().all():
            raise Diverged("the features contain numbers that are not finite")
        rows = rows if self.rest is None else torch.cat([self.rest, rows])
        whole = len(rows) - len(rows) % BLOCK
        for block in rows[:whole].split(BLOCK) if whole else ():
            self.sums = self.sums.plus(sums_of(block))
        self.rest = rows[whole:].clone()

    def merge(self, other: "Moments") -> None:
        """Add all the rows that ``other`` has seen."""
        self.sums, self.rest = self.whole.plus(other.whole), None

    @property
    def whole(self) -> "Sums":
        """Of all rows, those included that do not fill a block."""
        return self.sums if self.rest is None or not len(self.rest) else self.sums.plus(sums_of(self.rest))

    @property
    def n(self) -> int:
        return self.sums.n + (0 if self.rest is None else len(self.rest))

    @property
    def mean(self) -> Tensor:
        """[D] float64."""
        return self.whole.mean

    @property
    def covariance(self) -> Tensor:
        """[D, D] float64, divided by n - 1; UsageError below two rows."""
        if self.n < 2:
            raise UsageError(f"a distance between distributions needs at least 2 images on each side, not {self.n}")
        return self.whole.scatter / (self.n - 1)


class Sums(NamedTuple):
    """Number, mean [D] and scatter [D, D] of some rows."""

    n: int
    mean: Tensor
    scatter: Tensor

    def plus(self, other: "Sums") -> "Sums":
        if not self.n or not other.n:
            return self if self.n else other
        n, shift = self.n + other.n, other.mean - self.mean
        scatter = self.scatter + other.scatter
        scatter.addr_(shift, shift, alpha=self.n * other.n / n)
        return Sums(n, self.mean + shift * (other.n / n), scatter)


def sums_of(rows: Tensor) -> Sums:
    mean = rows.mean(dim=0)
    centred = rows - mean
    return Sums(len(rows), mean, centred.T @ centred)


ROUNDING = 1e-5  # of the largest entry; float32 has 6e-8, sums of squares of a hundred thousand images some more


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


def is_covariance(matrix: Tensor) -> bool:
    """Whether a symmetric matrix [D, D] has no eigenvalue below 0, but for what rounding to float32 may do to one."""
    largest = float(matrix.abs().max())
    if largest == 0:
        return True
    scaled = matrix / largest  # numbers beyond what their squares can be
    return bool(torch.linalg.eigvalsh(scaled)[0] >= -ROUNDING * len(matrix) ** 0.5)


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


def fid() -> Metric:
    """The Frechet distance between the Gaussians of the features: FID on those of Inception.

    Formula: ``|m_a - m_b|^2 + tr S_a + tr S_b - 2 tr (S_a S_b)^(1/2)``
    Paper: Heusel et al. 2017, arXiv 1706.08500, equation 6.
    Use: to compare with published numbers; biased upwards below some 10,000 images.
    """

    def compute(pair: Comparison) -> Iterator[Score]:
        yield Score(pair.label, frechet_distance(pair.samples, pair.reference))

    return Metric(compute)


def sfid() -> Metric:
    """The Frechet distance of a layer that still sees places, for what the pooled features average away.

    Formula: that of ``fid``, on the first 7 channels of an intermediate layer of Inception.
    Use: to tell good layouts from good textures; needs ``inception`` with the network ``pth``.
    """

    def compute(pair: Comparison) -> Iterator[Score]:
        assert pair.samples.spatial and pair.reference.spatial
        yield Score("sFID", frechet_distance(pair.samples.spatial, pair.reference.spatial))

    return Metric(compute, frozenset({SPATIAL}), frozenset({SPATIAL}))
