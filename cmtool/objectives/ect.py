"""Easy consistency tuning (Geng et al. 2024, arXiv 2406.14548, section 3)."""

from cmtool.objectives.consistency import Consistency, along_noise, inverse_gap
from cmtool.objectives.levels import ect_ratio, log_normal, shrinking
from cmtool.objectives.metrics import pseudo_huber_of

__all__ = ["ect"]


def ect(
    *,
    mean: float = -1.1,
    std: float = 2.0,
    q: float = 2.0,
    k: float = 8.0,
    b: float = 1.0,
    stages: int = 8,
    c: float = 0.0,
    sigma_min: float = 0.002,
) -> Consistency:
    """Log-normal t with ``r(t)`` that starts at 0, plain denoising, and approaches t stage by stage.

    ``c`` is the constant of the pseudo-Huber metric, 0 for the norm itself.
    """

    def pair(u, progress):
        t = log_normal(u, mean, std)
        return t, ect_ratio(t, shrinking(progress, stages), q, k, b)

    return Consistency(pair, along_noise, pseudo_huber_of(c), inverse_gap, sigma_min=sigma_min)
