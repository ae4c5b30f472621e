"""Consistency training in continuous time (Song et al. 2023, arXiv 2303.01469, theorem 6)."""

from cmtool.objectives.continuous import Continuous, of_noise
from cmtool.objectives.still import still

__all__ = ["cct"]


def cct(
    *,
    metric: str = "l2",
    clock: str = "time",
    tangent: str = "jvp",
    rho: float = 7.0,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
) -> Continuous:
    """The limit of ``ct`` for a grid without end: f is moved against its change along the noise of each image.

    ``metric`` is "l2" or "l1"; ``tangent`` is "jvp" or "difference". ``clock`` is the variable of the derivative:
    "time" as the authors' program has it, or "grid", as ``ct`` would have it, whose pull at the highest levels is hard
    to bear. The authors start from a score model and learn at rates near 5e-6.
    """
    return still(
        of_noise,
        metric=metric,
        stop=True,
        clock=clock,
        tangent=tangent,
        rho=rho,
        sigma_min=sigma_min,
        sigma_max=sigma_max,
    )
