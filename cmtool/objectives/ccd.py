"""Consistency distillation in continuous time (Song et al. 2023, arXiv 2303.01469, theorems 3, 4 and 5)."""

from cmtool.core.denoiser import Denoiser
from cmtool.objectives.continuous import Continuous, of_teacher
from cmtool.objectives.still import still

__all__ = ["ccd"]


def ccd(
    teacher: Denoiser,
    *,
    metric: str = "l2",
    stop: bool = True,
    clock: str = "time",
    tangent: str = "jvp",
    rho: float = 7.0,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
) -> Continuous:
    """The limit of ``cd`` for a grid without end: f is to stand still along the teacher's ODE.

    ``stop`` false differentiates through the change itself, which takes twice the time and memory and has no use for
    ``tangent``; the other options are those of ``cct``.
    """
    return still(
        of_teacher(teacher),
        metric=metric,
        stop=stop,
        clock=clock,
        tangent=tangent,
        rho=rho,
        sigma_min=sigma_min,
        sigma_max=sigma_max,
        teacher=teacher,
    )
