"""Consistency training (Song et al. 2023, arXiv 2303.01469, algorithm 3 and appendix C)."""

from cmtool.errors import unknown
from cmtool.objectives.consistency import Consistency, along_noise, pair_weight
from cmtool.objectives.levels import adjacent, openai_rate, openai_steps
from cmtool.objectives.metrics import metric as metric_called

__all__ = ["ct"]

CONVENTIONS = ("paper", "openai")


def ct(
    *,
    first: int = 2,
    last: int = 150,
    decay: float = 0.9,
    convention: str = "paper",
    metric: str = "l2",
    weight: str = "uniform",
    rho: float = 7.0,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    sigma_data: float = 0.5,
) -> Consistency:
    """Neighbouring levels of a grid that grows from ``first`` to ``last`` steps, joined along the noise.

    ``decay`` is mu0 of the target, 0 for the model itself; ``convention`` is "paper" or "openai", which differ in N
    by one. ``metric`` and ``weight`` are named as those of 'cd'.
    """
    if convention not in CONVENTIONS:
        raise unknown("convention", convention, CONVENTIONS)

    def levels(progress: float) -> int:
        return openai_steps(progress, first, last)

    return Consistency(
        pair=lambda u, progress: adjacent(u, levels(progress), sigma_min, sigma_max, rho),
        back=along_noise,
        metric=metric_called(metric),
        weight=pair_weight(weight, sigma_data),
        decay=(lambda progress: openai_rate(levels(progress), first, decay, convention)) if decay else None,
        sigma_min=sigma_min,
    )
