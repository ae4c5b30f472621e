"""Consistency distillation with the pairs of easy consistency tuning.

Song et al. 2023, arXiv 2303.01469, algorithm 2, and Geng et al. 2024, arXiv 2406.14548, section 3.
"""

from cmtool.core.denoiser import Denoiser
from cmtool.core.solvers import euler
from cmtool.objectives.consistency import Consistency, along_teacher, pair_weight
from cmtool.objectives.ect import closing
from cmtool.objectives.metrics import pseudo_huber_of

__all__ = ["ecd"]


def ecd(
    teacher: Denoiser,
    *,
    mean: float = -1.1,
    std: float = 2.0,
    q: float = 2.0,
    k: float = 8.0,
    b: float = 1.0,
    stages: int = 8,
    c: float = 0.0,
    weight: str = "gap",
    quantize: int = 0,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    sigma_data: float = 0.5,
) -> Consistency:
    """'ect' whose step back is Euler's along the teacher's ODE, ``x_r = x_t + (r - t)/t (x_t - D(x_t, t))``.

    The pairs begin at ``r = 0``, where that step ends at what the teacher takes the image to be, and come closer stage
    by stage, so that the highest levels learn at once. Solvers of a higher order look at r, which may be 0.
    """
    return Consistency(
        pair=closing(mean, std, q, k, b, stages, sigma_min, quantize, sigma_max),
        back=along_teacher(teacher, euler()),
        metric=pseudo_huber_of(c),
        weight=pair_weight(weight, sigma_data),
        sigma_min=sigma_min,
        teacher=teacher,
    )
