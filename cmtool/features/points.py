"""``points``: the features of a point are its coordinates."""

from typing import Annotated

from torch import Tensor

from cmtool.errors import Hint, Setting, UsageError
from cmtool.features import Features
from cmtool.options.plugin_option import Option
from cmtool.options.types import at_least

__all__ = ["Points", "points"]

IMAGES_NEED = Hint("images need {}", Setting("features", "small"))


class Points(Features):
    """The identity on float32 [B, dim]: the distance compares mean and covariance of the points themselves."""

    name, label = "points", "FD-points"

    def __init__(self, dim: int):
        self.dim, self.fingerprint = dim, f"points {dim}"

    def __call__(self, points: Tensor, /) -> Tensor:
        if points.ndim != 2:
            raise UsageError("the features 'points' measure points, not images", IMAGES_NEED)
        if points.shape[1] != self.dim:
            raise UsageError(
                f"the features 'points' expect {self.dim} coordinates, these points have {points.shape[1]}",
                Setting("features.dim", points.shape[1]),
            )
        return points.float()


def points(*, dim: Annotated[int, Option("coordinates of a point", at_least(1, 10**6))] = 2) -> Points:
    """The coordinates of points as they are: the distance compares their mean and covariance.

    Formula: ``phi(x) = x``
    Use: for the data sets gaussians, ring and checkerboard, and other points.
    """
    return Points(dim)
