"""Truncated consistency models, the second stage (Lee et al. 2024, arXiv 2410.14895)."""

import copy

import torch
from torch import Tensor, nn

from cmtool.core.denoiser import Denoise
from cmtool.objectives.consistency import Consistency, Point, along_noise, pair_weight
from cmtool.objectives.distances import pseudo_huber_of
from cmtool.objectives.noise_levels import ect_ratio, log_student

__all__ = ["Truncated", "tcm"]


class Truncated(Consistency):
    """Pairs above ``lowest`` as ever; where r lies below it, the target is the model as it was at the start.

    The model is of no use below ``lowest``, and the header of its checkpoints says so.
    """

    starts_from = "consistency"
    teacher: nn.Module  # the model at the start; left out of snapshots, for --init brings it back

    @property
    def sampling(self) -> list[float]:
        """Two-step samples come back to the lowest level that is trained."""
        return [self.lowest]

    def begin(self, model: nn.Module) -> None:
        super().begin(model)
        self.teacher = copy.deepcopy(model).eval().requires_grad_(False)

    def target_output(self, model: Denoise, above: Point, below: Point, labels: Tensor | None) -> Tensor:
        there, (x_r, r) = super().target_output(model, above, below, labels), below
        known = r < self.lowest
        if known.any():
            there[known] = self.teacher(x_r[known], r[known], labels if labels is None else labels[known])
        return there


def tcm(
    *,
    start: float = 1.0,
    share: float = 0.25,
    boundary: float = 0.1,
    df: float = 0.01,
    scale: float = 0.2,
    q: float = 1000.0,
    k: float = 8.0,
    b: float = 1.0,
    c: float = 0.0,
    weight: str = "gap",
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    sigma_data: float = 0.5,
) -> Truncated:
    """A consistency model that spends its capacity on the levels above ``start``, t' in the paper.

    A ``share`` of the pairs has t = t', whose target is the first model: the boundary loss, which counts ``boundary``
    times. For the others ln t has a Student distribution with ``df`` degrees of freedom and width ``scale``, cut to t'
    and sigma_max. ``c``, ``weight`` and r(t) are those of 'ect', r(t) as it is in the last stage.
    """
    weighted = pair_weight(weight, sigma_data)

    def pair(u: Tensor, progress: float) -> tuple[Tensor, Tensor]:
        inside = log_student(((u - share) / (1 - share)).clamp(min=0), start, sigma_max, df, scale)
        t = torch.where(u < share, torch.full_like(u, start), inside)
        return t, ect_ratio(t, 0, q, k, b)

    def counted(t: Tensor, r: Tensor) -> Tensor:
        """The mean over boundary pairs and the mean over the others, as weights of single pairs."""
        rate = torch.where(t == start, torch.full_like(t, boundary / share), torch.full_like(t, 1 / (1 - share)))
        return rate * weighted(t, r)

    objective = Truncated(pair, along_noise, pseudo_huber_of(c), counted, sigma_min=sigma_min)
    objective.lowest = start
    return objective
