"""Multistep consistency distillation (Heek et al. 2024, arXiv 2403.06807, algorithm 1)."""

from cmtool import registry
from cmtool.core.denoiser import Denoiser
from cmtool.core.grids import karras
from cmtool.errors import UsageError
from cmtool.objectives.consistency import along_teacher, truncated_snr
from cmtool.objectives.levels import adjacent
from cmtool.objectives.metrics import metric as metric_called
from cmtool.objectives.segments import Segments

__all__ = ["mcd"]


def mcd(
    teacher: Denoiser,
    *,
    segments: int = 2,
    steps: int = 18,
    solver: str = "heun",
    metric: str = "l2",
    decay: float = 0.95,
    rho: float = 7.0,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
) -> Segments:
    """Neighbours of a Karras grid of at least ``steps`` steps, compared where their one of K ``segments`` ends.

    The network stays one that predicts x_0; K jumps of it make an image, and one segment is consistency distillation.
    ``decay`` is that of the target, as for 'cd'. The weight is max(1/t^2, 1); the paper's aDDIM teacher, the growth of
    its number of steps and its cosine times are left out for the solvers and the grid of the other methods.
    """
    if not 1 <= segments <= steps:
        raise UsageError(f"'mcd' needs a step for each segment, not {steps} for {segments}", "18 for 2 is usual")
    each = -(-steps // segments)
    grid = karras(segments * each + 1, sigma_min, sigma_max, rho)
    return Segments(
        lambda: grid[::each],
        pair=lambda u, progress: adjacent(u, len(grid), sigma_min, sigma_max, rho),
        back=along_teacher(teacher, registry.build("solvers", solver)),
        metric=metric_called(metric),
        weight=truncated_snr,
        decay=(lambda progress: decay) if decay else None,
        teacher=teacher,
    )
