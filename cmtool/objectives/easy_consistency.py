"""Easy consistency tuning (ect), with a teacher (ecd), and stable consistency tuning (stable).

Sources: Geng et al. 2024, arXiv 2406.14548, section 3; Song et al. 2023, arXiv 2303.01469, algorithm 2, for the
teacher; Wang et al. 2024, arXiv 2410.18958, section 3, for the target of less variance.
"""

import torch
from torch import Tensor

from cmtool.core.denoiser import Denoiser, broadcast_like
from cmtool.core.sigma_schedules import karras
from cmtool.core.solvers import euler
from cmtool.errors import UsageError
from cmtool.objectives.consistency import Consistency, Pair, along_noise, along_teacher, pair_weight
from cmtool.objectives.distances import pseudo_huber_of
from cmtool.objectives.noise_levels import ect_ratio, ect_stage, log_normal, on_grid
from cmtool.objectives.objective import Batch

__all__ = ["along_posterior_mean", "ecd", "ect", "ect_pairs", "posterior_mean", "stable"]


def ect(
    *,
    P_mean: float = -1.1,
    P_std: float = 2.0,
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
    """Log-normal t with ``r(t)`` that starts at 0, plain denoising, and approaches t stage by stage.

    ``c`` is the constant of the pseudo-Huber metric, 0 for the norm itself. ``weight`` is "gap", 1/(t - r), as the
    authors train CIFAR-10; "variance", 1/c_out^2, as they train ImageNet; or "output", 1/c_out, which gives high
    levels more say and is what short runs need. With ``quantize`` both levels of a
    pair are rounded to a Karras grid of so many, 1000 in FastGen.
    """
    pair = ect_pairs(P_mean, P_std, q, k, b, stages, sigma_min, quantize, sigma_max)
    return Consistency(pair, along_noise, pseudo_huber_of(c), pair_weight(weight, sigma_data), sigma_min=sigma_min)


def ect_pairs(
    P_mean: float,
    P_std: float,
    q: float,
    k: float,
    b: float,
    stages: int,
    sigma_min: float,
    quantize: int = 0,
    sigma_max: float = 80.0,
) -> Pair:
    """``ln t ~ N(mean, std^2)``, and ``r(t)`` that comes closer with every one of ``stages`` equal parts of the run."""
    if stages < 1:
        raise UsageError(f"pairs come closer in 1 stage or more, not {stages}", "8 is usual")
    if quantize and quantize < 2:
        raise UsageError(f"levels are rounded to a grid of 2 or more, not {quantize}", "1000 is usual, 0 leaves them")
    grid = karras(quantize, sigma_min, sigma_max) if quantize else None

    def pair(u: Tensor, progress: float) -> tuple[Tensor, Tensor]:
        t = log_normal(u, P_mean, P_std).clamp(min=sigma_min)  # below the boundary c_out changes sign
        r = ect_ratio(t, ect_stage(progress, stages), q, k, b)
        return (t, r) if grid is None else on_grid(t, r, grid)

    return pair


def ecd(
    teacher: Denoiser,
    *,
    P_mean: float = -1.1,
    P_std: float = 2.0,
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
        pair=ect_pairs(P_mean, P_std, q, k, b, stages, sigma_min, quantize, sigma_max),
        previous_point=along_teacher(teacher, euler()),
        metric=pseudo_huber_of(c),
        weight=pair_weight(weight, sigma_data),
        sigma_min=sigma_min,
        teacher=teacher,
    )


def posterior_mean(x_t: Tensor, t: Tensor, batch: Batch) -> Tensor:
    """``E[x_0 | x_t]`` if the data were the other images: ``sum_i w_i x_i``, ``w = softmax_i(-|x_t - x_i|^2 / 2 t^2)``.

    With a label only images of the same class count (Xu et al. 2023, arXiv 2302.00670, eq. 5, for each class).
    """
    assert batch.others is not None
    others = batch.others.flatten(1)
    gaps = torch.cdist(x_t.flatten(1), others, compute_mode="donot_use_mm_for_euclid_dist")
    logits = -((gaps.double() / t[:, None]) ** 2) / 2
    if batch.labels is not None and batch.classes is not None:
        told = batch.labels[:, None]
        logits[(told >= 0) & (told != batch.classes)] = -torch.inf
    return (logits.softmax(1).to(others) @ others).view_as(x_t)


def along_posterior_mean(x_t: Tensor, batch: Batch, t: Tensor, r: Tensor) -> Tensor:
    """``x_t + (r - t)/t (x_t - E[x_0 | x_t])``, an Euler step with the denoiser of the data at hand."""
    mean = posterior_mean(x_t, t, batch)
    return mean + broadcast_like(r / t, x_t) * (x_t - mean)


def stable(
    *,
    others: int = 1024,
    P_mean: float = -1.1,
    P_std: float = 2.0,
    q: float = 2.0,
    k: float = 8.0,
    b: float = 1.0,
    stages: int = 8,
    c: float = 0.0,
    weight: str = "gap",
    sigma_min: float = 0.002,
    sigma_data: float = 0.5,
) -> Consistency:
    """'ect' whose step back follows the posterior mean of the data in place of the one image.

    The mean is over ``others``, images of the run from the first of the batch on, so at least the batch, and the whole
    data set where it is no larger; neither threads nor the cut of a batch change it. The rest is as for 'ect'.
    """
    if others < 1:
        raise UsageError(f"'stable' needs the mean of 1 image or more, not {others}", "1024 is usual")
    pair, weighted = ect_pairs(P_mean, P_std, q, k, b, stages, sigma_min), pair_weight(weight, sigma_data)
    objective = Consistency(pair, along_posterior_mean, pseudo_huber_of(c), weighted, sigma_min=sigma_min)
    objective.others = others
    return objective
