"""What is known of a set of images once their features were seen; every metric is computed from two of these."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

__all__ = ["Gaussian", "Nearest", "NearestPair", "Normal", "Statistics"]


class Gaussian(Protocol):
    """What a distribution is reduced to: a mean [D] and a covariance [D, D]."""

    @property
    def mean(self) -> Tensor: ...

    @property
    def covariance(self) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class Normal:
    """Mean [D] and covariance [D, D] in float64."""

    mean: Tensor
    covariance: Tensor


@dataclass(frozen=True)
class NearestPair:
    """An image that was made, the number of the training image nearest to it, and how far apart their features are."""

    made: int
    training: int
    distance: float
    image: Tensor


class Nearest(Protocol):
    """The training images nearest to the images made: the suspicious ``share`` and the closest ``pairs``."""

    @property
    def share(self) -> float: ...

    @property
    def pairs(self) -> list[NearestPair]: ...


@dataclass(frozen=True, eq=False)
class Statistics:
    """Mean [D] and covariance [D, D] in float64, and where they come from as far as it is known.

    ``rows`` [N, D] are the features themselves, ``spatial`` the moments of sFID's, ``scores`` the Inception Score of
    each split (float64) and ``nearest`` the nearest training images, where they were measured; ``mode`` is how images
    were resized, where the file says so, ``sha256`` that of the file or of the pixels.
    """

    mean: Tensor
    covariance: Tensor
    n: int | None = None
    features: str | None = None
    fingerprint: str | None = None
    data: str | None = None
    rows: Tensor | None = None
    spatial: Gaussian | None = None
    scores: Tensor | None = None
    nearest: Nearest | None = None
    mode: str | None = None
    sha256: str | None = None
