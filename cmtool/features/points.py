"""``points``: a point is its own features."""

from torch import Tensor

from cmtool.errors import UsageError
from cmtool.features import Features

__all__ = ["Points", "points"]


class Points(Features):
    """The identity on float32 [B, dim]: the distance compares mean and covariance of the points themselves."""

    name, label = "points", "FD-points"

    def __init__(self, dim: int):
        self.dim, self.fingerprint = dim, f"points {dim}"

    def __call__(self, points: Tensor, /) -> Tensor:
        if points.ndim != 2:
            raise UsageError("the features 'points' measure points, not images", "images need --features small")
        if points.shape[1] != self.dim:
            raise UsageError(
                f"the features 'points' expect {self.dim} coordinates, these points have {points.shape[1]}",
                f"--set features.dim={points.shape[1]}",
            )
        return points.float()


def points(*, dim: int = 2) -> Points:
    """Points in ``dim`` dimensions as they are."""
    if dim < 1:
        raise UsageError(f"points have 1 coordinate or more, not {dim}")
    return Points(dim)
