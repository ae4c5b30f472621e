"""Truncated consistency models, the second stage (Lee et al. 2024, arXiv 2410.14895)."""

import copy
import math
from typing import Annotated

import torch
from torch import Tensor, nn

from cmtool.core.denoiser import Denoise
from cmtool.objectives.consistency import (
    Consistency,
    ECTBOption,
    ECTKOption,
    ECTQOption,
    PairWeightOption,
    Point,
    along_noise,
    ect_ratio,
    pair_weight,
)
from cmtool.objectives.distances import HuberOption, pseudo_huber_of
from cmtool.objectives.objective import Batch, Requirements, SigmaDataOption, SigmaMaxOption, SigmaMinOption
from cmtool.options.plugin_option import Option
from cmtool.options.types import at_least, between, positive

__all__ = ["Truncated", "log_student", "tcm"]


class Truncated(Consistency):
    """Pairs above t' as ever; where r lies below t', the target is the model as it was at the start.

    The model is of no use below t', ``lowest_sigma``, and the header of its checkpoints says so.
    """

    teacher: nn.Module  # the model at the start; left out of snapshots, for --init brings it back

    def begin(self, model: nn.Module) -> None:
        super().begin(model)
        self.teacher = copy.deepcopy(model).eval().requires_grad_(False)

    def uneven(self) -> list[nn.Module]:
        return [self.teacher]

    def target_output(self, model: Denoise, above: Point, below: Point, batch: Batch) -> Tensor:
        output, (x_r, r) = super().target_output(model, above, below, batch), below
        known = r < self.requirements.lowest_sigma
        if known.any():
            some = batch.select(known)
            output[known] = some.condition(self.teacher)(x_r[known], r[known], some.labels)
        return output


def tcm(
    *,
    start: Annotated[float, Option("t', above which the model is trained", positive())] = 1.0,
    share: Annotated[float, Option("share of the pairs with t = t'", between(0.01, 0.99))] = 0.25,
    boundary: Annotated[float, Option("weight of the boundary loss, that of the pairs with t = t'", at_least(0))] = 0.1,
    df: Annotated[float, Option("degrees of freedom of Student's distribution of ln t", positive())] = 0.01,
    scale: Annotated[float, Option("width of that distribution", positive())] = 0.2,
    q: ECTQOption = 1000.0,
    k: ECTKOption = 8.0,
    b: ECTBOption = 1.0,
    c: HuberOption = 0.0,
    weight: PairWeightOption = "gap",
    sigma_min: SigmaMinOption = 0.002,
    sigma_max: SigmaMaxOption = 80.0,
    sigma_data: SigmaDataOption = 0.5,
) -> Truncated:
    """Truncated consistency model, second stage: all capacity goes to the noise levels above t'.

    Formula: ``loss = mean_(t > t') w d(f(x_t, t), f(x_r, r)) + boundary mean_(t = t') w d(f(x_t, t), f_0(x_r, r))``,
    f_0 the first model, which is also the target wherever r lies below t'
    Paper: Lee et al. 2024, arXiv 2410.14895.
    Use: from a consistency model, with --init, for better one-step samples.

    For pairs above t' ln t has a Student distribution, cut to t' and sigma_max. ``c``, ``weight`` and r(t) are those of
    'ect', r(t) as it is in the last stage. Two-step samples come back to t'.
    """
    weighted = pair_weight(weight, sigma_data)

    def pair(u: Tensor, progress: float) -> tuple[Tensor, Tensor]:
        above = log_student(((u - share) / (1 - share)).clamp(min=0), start, sigma_max, df, scale)
        t = torch.where(u < share, torch.full_like(u, start), above)
        return t, ect_ratio(t, 0, q, k, b)

    def counted(t: Tensor, r: Tensor) -> Tensor:
        """The mean over boundary pairs and the mean over the others, as weights of single pairs."""
        rate = torch.where(t == start, torch.full_like(t, boundary / share), torch.full_like(t, 1 / (1 - share)))
        return rate * weighted(t, r)

    requirements = Requirements(
        "consistency", sigma_min, starts_from="consistency", lowest_sigma=start, sampling_sigmas=(start,)
    )
    return Truncated(pair, along_noise, pseudo_huber_of(c), counted, requirements=requirements)


def log_student(u: Tensor, low: float, high: float, df: float, scale: float) -> Tensor:
    """Sigma from ``low`` to ``high`` whose ln has the density ``(1 + (ln sigma / scale)^2 / df)^(-(df + 1)/2)``, [B].

    By inversion: in ``y = asinh(ln sigma / (scale sqrt(df)))`` the density is cosh(y)^-df, flat for small df, and its
    integral is taken from a table (Lee et al. 2024, arXiv 2410.14895, section 4).
    """
    width = scale * math.sqrt(df)
    first, last = (math.asinh(math.log(sigma) / width) for sigma in (low, high))
    y = torch.linspace(first, last, 4097, dtype=torch.float64).to(u)
    mass = torch.cumulative_trapezoid(y.cosh() ** -df, y)
    mass = torch.cat([mass.new_zeros(1), mass]) / mass[-1]
    i = torch.searchsorted(mass, u.contiguous()).clamp(1, len(y) - 1)
    part = (u - mass[i - 1]) / (mass[i] - mass[i - 1])
    return (width * (y[i - 1] + part * (y[i] - y[i - 1])).sinh()).exp().clamp(low, high)
