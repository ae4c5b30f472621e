"""Consistency distillation (cd) and training (ct; Song et al. 2023, arXiv 2303.01469), and improved training (ict).

Sources: algorithms 2 and 3 and appendix C there; Song and Dhariwal 2023, arXiv 2310.14189, section 3.
"""

from cmtool.core.denoiser import Denoiser
from cmtool.errors import UsageError, unknown_name
from cmtool.objectives.consistency import Consistency, along_noise, along_teacher, pair_weight
from cmtool.objectives.distances import metric_called, pseudo_huber, pseudo_huber_of
from cmtool.objectives.noise_levels import (
    adjacent_log_normal,
    adjacent_pair,
    doubling_steps,
    openai_ema_decay,
    openai_steps,
)
from cmtool.options import registry

__all__ = ["cd", "ct", "ict"]


def cd(
    teacher: Denoiser,
    *,
    steps: int = 18,
    solver: str = "heun",
    substeps: int = 1,
    metric: str = "l2",
    weight: str = "uniform",
    decay: float = 0.95,
    rho: float = 7.0,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    sigma_data: float = 0.5,
) -> Consistency:
    """Neighbouring levels of a Karras grid, joined by ``substeps`` solver steps along the teacher's ODE.

    ``decay`` is mu of the target. The teacher's step has no noise in it, so l2 loses nothing, and a target that lags
    keeps errors from running up the grid: without one (0, which the paper can afford over 400 million images) short
    runs spoil themselves. ``metric`` is "l1", "l2", "l2-32", "lpips" or another by name, ``weight`` "uniform", "snr",
    "snr+1", "karras", "truncated-snr" or another of a pair.
    """
    if steps < 2:
        raise UsageError(f"'cd' needs 2 levels or more, not {steps}", "18 is usual")
    if substeps < 1:
        raise UsageError(f"'cd' needs 1 solver step or more between two levels, not {substeps}")
    return Consistency(
        pair=lambda u, progress: adjacent_pair(u, steps, sigma_min, sigma_max, rho),
        previous_point=along_teacher(teacher, registry.build("solvers", solver), substeps, rho),
        metric=metric_called(metric),
        weight=pair_weight(weight, sigma_data),
        decay=(lambda progress: decay) if decay else None,
        sigma_min=sigma_min,
        teacher=teacher,
    )


CONVENTIONS = ("paper", "openai")


def ct(
    *,
    s0: int = 2,
    s1: int = 150,
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
        raise unknown_name("convention", convention, CONVENTIONS)

    def levels(progress: float) -> int:
        return openai_steps(progress, s0, s1)

    return Consistency(
        pair=lambda u, progress: adjacent_pair(u, levels(progress), sigma_min, sigma_max, rho),
        previous_point=along_noise,
        metric=metric_called(metric),
        weight=pair_weight(weight, sigma_data),
        decay=(lambda progress: openai_ema_decay(levels(progress), s0, decay, convention)) if decay else None,
        sigma_min=sigma_min,
    )


def ict(
    *,
    s0: int = 10,
    s1: int = 1280,
    P_mean: float = -1.1,
    P_std: float = 2.0,
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
    if not 1 <= s0 <= s1:
        raise UsageError(f"'ict' goes from few steps to more, not from {s0} to {s1}", "10 to 1280 is usual")

    def pair(u, progress):
        n = doubling_steps(progress, s0, s1)
        return adjacent_log_normal(u, n, P_mean, P_std, sigma_min, sigma_max, rho)

    metric = pseudo_huber if c is None else pseudo_huber_of(c)
    return Consistency(pair, along_noise, metric, pair_weight(weight, sigma_data), sigma_min=sigma_min)
