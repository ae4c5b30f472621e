"""Simplified consistency training (Lu and Song 2024, arXiv 2410.11081, algorithm 1 without a teacher)."""

from cmtool.objectives.continuous import Continuous, of_noise
from cmtool.objectives.scm import scm

__all__ = ["sct"]


def sct(
    *,
    mean: float = -1.0,
    std: float = 1.4,
    warmup: float = 0.1,
    c: float = 0.1,
    norm: str = "rms",
    tangent: str = "jvp",
    adaptive: bool = False,
    prior: float = 0.0,
    sigma_data: float = 0.5,
) -> Continuous:
    """TrigFlow's consistency model from data alone: ``dx_t/dt = cos(t) z - sin(t) x_0``, ``ln sigma`` normal.

    ``warmup`` is the share of the run over which r grows (10,000 steps in the paper); ``c`` and ``norm`` are those of
    g / (|g| + c), "rms" or "l2", which differ by the square root of the number of pixels; ``tangent`` is "jvp" or
    "difference". ``adaptive`` learns the weight of each level, as the paper does: in runs of minutes it is better off,
    for it makes up for small errors, which the normalisation keeps small. ``prior`` p divides the loss by sigma^p.
    """
    return scm(
        of_noise,
        mean=mean,
        std=std,
        warmup=warmup,
        c=c,
        norm=norm,
        tangent=tangent,
        adaptive=adaptive,
        prior=prior,
        sigma_data=sigma_data,
    )
