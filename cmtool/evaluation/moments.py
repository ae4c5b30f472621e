"""Mean and covariance of a stream of features, in float64 and in one pass."""

import torch
from torch import Tensor

from cmtool.errors import Diverged, UsageError

__all__ = ["Moments"]


class Moments:
    """Mean and unbiased covariance of all the rows seen so far, whatever the batches they came in.

    Two sets with sizes n_a, n_b, means m_a, m_b and scatters M_a, M_b (M = sum (x - m)(x - m)^T) have together

        m = m_a + (n_b / n) d,    M = M_a + M_b + (n_a n_b / n) d d^T,    d = m_b - m_a,    n = n_a + n_b

    and the covariance is M / (n - 1). Sums of centred numbers lose no digits, where sum x x^T - n m m^T would.
    Chan, Golub and LeVeque 1983, "Algorithms for Computing the Sample Variance", equations 2.1.
    """

    def __init__(self):
        self.n = 0
        self.mean = torch.zeros(0, dtype=torch.float64)
        self.scatter = torch.zeros(0, 0, dtype=torch.float64)

    def update(self, features: Tensor) -> None:
        """Add the rows of ``features`` [B, D], on their own device; Diverged when one is not finite."""
        rows = features.detach().double()
        if not rows.isfinite().all():
            raise Diverged("the features contain numbers that are not finite")
        mean = rows.mean(dim=0)
        centred = rows - mean
        self._add(len(rows), mean, centred.T @ centred)

    def merge(self, other: "Moments") -> None:
        """Add all the rows that ``other`` has seen."""
        self._add(other.n, other.mean.clone(), other.scatter.clone())

    @property
    def covariance(self) -> Tensor:
        """[D, D] float64, divided by n - 1; UsageError below two rows."""
        if self.n < 2:
            raise UsageError(f"a distance between distributions needs at least 2 images on each side, not {self.n}")
        return self.scatter / (self.n - 1)

    def _add(self, n: int, mean: Tensor, scatter: Tensor) -> None:
        if n == 0:
            return
        if self.n == 0:
            self.n, self.mean, self.scatter = n, mean, scatter
            return
        total = self.n + n
        shift = mean - self.mean
        self.mean = self.mean + shift * (n / total)
        self.scatter += scatter
        self.scatter.addr_(shift, shift, alpha=self.n * n / total)
        self.n = total
