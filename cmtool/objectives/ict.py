"""Improved consistency training (Song and Dhariwal 2023, arXiv 2310.14189, section 3)."""

from cmtool.errors import UsageError
from cmtool.objectives.consistency import Consistency, along_noise, pair_weight
from cmtool.objectives.levels import adjacent_log_normal, doubling_steps
from cmtool.objectives.metrics import pseudo_huber, pseudo_huber_of

__all__ = ["ict"]


def ict(
    *,
    first: int = 10,
    last: int = 1280,
    mean: float = -1.1,
    std: float = 2.0,
    c: float | None = None,
    weight: str = "gap",
    rho: float = 7.0,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    sigma_data: float = 0.5,
) -> Consistency:
    """Neighbours of a grid whose steps double from ``first`` to ``last``, drawn as often as ln t is normal, no target.

    The metric is the pseudo-Huber distance of the whole image with the constant ``c``, by default 0.00054 sqrt(D) (eq.
    7 and 8); ``weight`` is "gap", 1/(t - r) (section 3.4), or another one of 'ect'; the doubling is eq. 12,
    the distribution of pairs eq. 13.
    """
    if not 1 <= first <= last:
        raise UsageError(f"'ict' goes from few steps to more, not from {first} to {last}", "10 to 1280 is usual")

    def pair(u, progress):
        n = doubling_steps(progress, first, last)
        return adjacent_log_normal(u, n, mean, std, sigma_min, sigma_max, rho)

    metric = pseudo_huber if c is None else pseudo_huber_of(c)
    return Consistency(pair, along_noise, metric, pair_weight(weight, sigma_data), sigma_min=sigma_min)
