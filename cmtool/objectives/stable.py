"""Stable consistency tuning: a target of less variance (Wang et al. 2024, arXiv 2410.18958, section 3)."""

import torch
from torch import Tensor

from cmtool.core.denoiser import like
from cmtool.errors import UsageError
from cmtool.objectives.consistency import Consistency, pair_weight
from cmtool.objectives.ect import closing
from cmtool.objectives.metrics import pseudo_huber_of
from cmtool.objectives.objective import Batch

__all__ = ["along_mean", "posterior_mean", "stable"]


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


def along_mean(x_t: Tensor, batch: Batch, t: Tensor, r: Tensor) -> Tensor:
    """``x_t + (r - t)/t (x_t - E[x_0 | x_t])``, an Euler step with the denoiser of the data at hand."""
    mean = posterior_mean(x_t, t, batch)
    return mean + like(r / t, x_t) * (x_t - mean)


def stable(
    *,
    others: int = 1024,
    mean: float = -1.1,
    std: float = 2.0,
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
    pair, weighted = closing(mean, std, q, k, b, stages, sigma_min), pair_weight(weight, sigma_data)
    objective = Consistency(pair, along_mean, pseudo_huber_of(c), weighted, sigma_min=sigma_min)
    objective.others = others
    return objective
