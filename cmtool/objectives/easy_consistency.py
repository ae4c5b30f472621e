"""Easy consistency tuning (ect), with a teacher (ecd), and stable consistency tuning (stable).

The mapping function r(t) is ``ect_ratio`` in ``consistency.py``, its stages are ``ect_stage``.

Sources: Geng et al. 2024, arXiv 2406.14548, section 3; Song et al. 2023, arXiv 2303.01469, algorithm 2, for the
teacher; Wang et al. 2024, arXiv 2410.18958, section 3, for the target of less variance.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from cmtool.core.denoiser import Denoiser, broadcast_like
from cmtool.core.sigma_schedules import karras
from cmtool.errors import UsageError
from cmtool.objectives.consistency import (
    Consistency,
    ECTBOption,
    ECTKOption,
    ECTQOption,
    PairWeightOption,
    along_noise,
    along_teacher,
    ect_ratio,
    pair_weight,
)
from cmtool.objectives.distances import HuberOption, pseudo_huber_of
from cmtool.objectives.noise_levels import PMeanOption, PStdOption, log_normal
from cmtool.objectives.objective import Batch, Requirements, SigmaDataOption, SigmaMaxOption, SigmaMinOption
from cmtool.options import registry
from cmtool.options.plugin_option import Option
from cmtool.options.types import at_least

__all__ = ["EasyPairs", "along_posterior_mean", "ecd", "ect", "ect_stage", "posterior_mean", "round_pair", "stable"]

StagesOption = Annotated[int, Option("equal parts of the run, after each of which r(t) comes closer to t", at_least(1))]
QuantizeOption = Annotated[
    int, Option("noise levels of a Karras schedule that pairs are rounded to, 2 or more; 0: none", at_least(0))
]


@dataclass(frozen=True)
class EasyPairs:
    """``ln t ~ N(P_mean, P_std^2)``, and an ``r(t)`` that comes closer after each of ``stages`` equal parts of a run.

    With a descending ``grid`` [N] both are rounded to it.
    """

    P_mean: float
    P_std: float
    q: float
    k: float
    b: float
    stages: int
    sigma_min: float
    grid: Tensor | None = None

    def __call__(self, u: Tensor, progress: float) -> tuple[Tensor, Tensor]:
        # below the boundary c_out changes sign
        t = log_normal(u, self.P_mean, self.P_std).clamp(min=self.sigma_min)
        r = ect_ratio(t, ect_stage(progress, self.stages), self.q, self.k, self.b)
        return (t, r) if self.grid is None else round_pair(t, r, self.grid)


def ect_stage(progress: float, stages: int) -> int:
    """The stage at progress p when training is cut into equal stages, 0 .. stages - 1."""
    return min(int(progress * stages), stages - 1)


def round_pair(t: Tensor, r: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
    """Both noise levels of a pair rounded to the nearest of a descending ``grid``, and one apart where they would meet.

    Then t goes up by one, or r down by one where t is the highest: FastGen's ``quantize``.
    """
    rising = grid.to(t).flip(0)
    middles = rising.unfold(0, 2, 1).mean(1)
    above, below = (torch.searchsorted(middles, v.contiguous()) for v in (t, r))
    meet, top = above == below, above == len(rising) - 1
    return rising[above + (meet & ~top)], rising[below - (meet & top).long()]


def quantized(n: int, sigma_min: float, sigma_max: float) -> Tensor | None:
    """The grid of the option ``quantize``."""
    if n == 1:
        raise UsageError("pairs are rounded to 2 noise levels or more, not 1", "1000 is usual, 0 leaves them")
    return karras(n, sigma_min, sigma_max) if n else None


def ect(
    *,
    P_mean: PMeanOption = -1.1,
    P_std: PStdOption = 2.0,
    q: ECTQOption = 2.0,
    k: ECTKOption = 8.0,
    b: ECTBOption = 1.0,
    stages: StagesOption = 8,
    c: HuberOption = 0.0,
    weight: PairWeightOption = "gap",
    quantize: QuantizeOption = 0,
    sigma_min: SigmaMinOption = 0.002,
    sigma_max: SigmaMaxOption = 80.0,
    sigma_data: SigmaDataOption = 0.5,
) -> Consistency:
    """Easy consistency tuning: pairs of noise levels that come closer stage by stage, from plain denoising on.

    Formula: ``r(t) = max(0, t (1 - (1 + k sigmoid(-b t)) / q^(stage + 1)))``,
    ``loss = w(t, r) (sqrt(|f(x + t z, t) - f(x + r z, r)|^2 + c^2) - c)``
    Paper: Geng et al. 2024, arXiv 2406.14548, section 3.
    Use: with --init, when a trained score model or little compute is at hand; the first to try.

    ``weight`` is "gap", 1/(t - r), as the authors train CIFAR-10; "variance", 1/c_out^2, as they train ImageNet; or
    "output", 1/c_out, which gives high noise levels more say and is what short runs need. FastGen quantizes to 1000.
    """
    return Consistency(
        EasyPairs(P_mean, P_std, q, k, b, stages, sigma_min, quantized(quantize, sigma_min, sigma_max)),
        along_noise,
        pseudo_huber_of(c),
        pair_weight(weight, sigma_data),
        requirements=Requirements("consistency", sigma_min),
    )


def ecd(
    teacher: Denoiser,
    *,
    P_mean: PMeanOption = -1.1,
    P_std: PStdOption = 2.0,
    q: ECTQOption = 2.0,
    k: ECTKOption = 8.0,
    b: ECTBOption = 1.0,
    stages: StagesOption = 8,
    c: HuberOption = 0.0,
    weight: PairWeightOption = "gap",
    quantize: QuantizeOption = 0,
    sigma_min: SigmaMinOption = 0.002,
    sigma_max: SigmaMaxOption = 80.0,
    sigma_data: SigmaDataOption = 0.5,
) -> Consistency:
    """Easy consistency distillation: the pairs of 'ect', joined by one Euler step along the teacher's ODE.

    Formula: ``x_r = x_t + (r - t)/t (x_t - D(x_t, t))``, ``loss = w(t, r) d(f(x_t, t), f(x_r, r))``
    Paper: Geng et al. 2024, arXiv 2406.14548, section 3; the step is that of Song et al. 2023, arXiv 2303.01469,
    algorithm 2.
    Use: the first distillation to try, above all in short runs.

    The pairs begin at ``r = 0``, where that step ends at what the teacher takes the image to be, and come closer stage
    by stage, so that the highest noise levels learn at once. Solvers of a higher order look at r, which may be 0.
    The command ``distill`` has other defaults, for short runs: P_mean=-0.4, P_std=1.6, k=40, stages=4, weight=output.
    """
    return Consistency(
        EasyPairs(P_mean, P_std, q, k, b, stages, sigma_min, quantized(quantize, sigma_min, sigma_max)),
        along_teacher(teacher, registry.build("solvers", "euler")),
        pseudo_huber_of(c),
        pair_weight(weight, sigma_data),
        requirements=Requirements("consistency", sigma_min),
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
        wanted = batch.labels[:, None]
        logits[(wanted >= 0) & (wanted != batch.classes)] = -torch.inf
    return (logits.softmax(1).to(others) @ others).view_as(x_t)


def along_posterior_mean(x_t: Tensor, batch: Batch, t: Tensor, r: Tensor) -> Tensor:
    """``x_t + (r - t)/t (x_t - E[x_0 | x_t])``, an Euler step with the denoiser of the data at hand."""
    mean = posterior_mean(x_t, t, batch)
    return mean + broadcast_like(r / t, x_t) * (x_t - mean)


def stable(
    *,
    others: Annotated[int, Option("images of the run that the posterior mean is over", at_least(1))] = 1024,
    P_mean: PMeanOption = -1.1,
    P_std: PStdOption = 2.0,
    q: ECTQOption = 2.0,
    k: ECTKOption = 8.0,
    b: ECTBOption = 1.0,
    stages: StagesOption = 8,
    c: HuberOption = 0.0,
    weight: PairWeightOption = "gap",
    sigma_min: SigmaMinOption = 0.002,
    sigma_data: SigmaDataOption = 0.5,
) -> Consistency:
    """Stable consistency tuning: 'ect' whose step back follows the posterior mean of the data, not the one image.

    Formula: ``x_r = x_t + (r - t)/t (x_t - E[x_0 | x_t])``, ``loss = w(t, r) d(f(x_t, t), f(x_r, r))``
    Paper: Wang et al. 2024, arXiv 2410.18958, section 3.
    Use: small data sets and short runs without a teacher, where the targets of 'ect' vary most.

    The mean is over images of the run from the first of the batch on, so at least the batch, and the whole data set
    where it is no larger; neither threads nor the cut of a batch change it. The command ``train-ct`` has other
    defaults, for short runs: P_mean=-0.4, P_std=1.6, k=40, stages=4, weight=output.
    """
    return Consistency(
        EasyPairs(P_mean, P_std, q, k, b, stages, sigma_min),
        along_posterior_mean,
        pseudo_huber_of(c),
        pair_weight(weight, sigma_data),
        requirements=Requirements("consistency", sigma_min, others=others),
    )
