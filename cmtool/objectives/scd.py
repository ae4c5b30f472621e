"""Simplified consistency distillation (Lu and Song 2024, arXiv 2410.11081, algorithm 1 with a teacher)."""

from cmtool.core.denoiser import Denoiser
from cmtool.objectives.continuous import Continuous, of_teacher
from cmtool.objectives.scm import scm

__all__ = ["scd"]


def scd(
    teacher: Denoiser,
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
    """TrigFlow's consistency model with the teacher's velocity as ``dx_t/dt``; any score model is a teacher.

    The options are those of ``sct``.
    """
    return scm(
        of_teacher(teacher),
        mean=mean,
        std=std,
        warmup=warmup,
        c=c,
        norm=norm,
        tangent=tangent,
        adaptive=adaptive,
        prior=prior,
        sigma_data=sigma_data,
        teacher=teacher,
    )
