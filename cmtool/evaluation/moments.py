"""Mean and covariance of a stream of features, in float64 and in one pass."""

from typing import NamedTuple

import torch
from torch import Tensor

from cmtool.errors import Diverged, UsageError

__all__ = ["Moments"]


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
