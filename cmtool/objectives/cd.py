"""Consistency distillation (Song et al. 2023, arXiv 2303.01469, algorithm 2)."""

from cmtool import registry
from cmtool.core.denoiser import Denoiser
from cmtool.errors import UsageError
from cmtool.objectives.consistency import Consistency, along_teacher, pair_weight
from cmtool.objectives.levels import adjacent
from cmtool.objectives.metrics import metric as metric_called

__all__ = ["cd"]


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
        pair=lambda u, progress: adjacent(u, steps, sigma_min, sigma_max, rho),
        back=along_teacher(teacher, registry.build("solvers", solver), substeps, rho),
        metric=metric_called(metric),
        weight=pair_weight(weight, sigma_data),
        decay=(lambda progress: decay) if decay else None,
        sigma_min=sigma_min,
        teacher=teacher,
    )
