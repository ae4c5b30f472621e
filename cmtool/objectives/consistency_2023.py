"""Consistency distillation (cd) and training (ct; Song et al. 2023, arXiv 2303.01469), and improved training (ict).

Sources: algorithms 2 and 3 and appendix C there; Song and Dhariwal 2023, arXiv 2310.14189, section 3.
"""

import math
from typing import Annotated

import torch
from torch import Tensor

from cmtool.core.denoiser import Denoiser
from cmtool.core.sigma_schedules import karras
from cmtool.errors import UsageError, unknown_name
from cmtool.objectives.consistency import (
    Consistency,
    PairWeightOption,
    adjacent_pair,
    along_noise,
    along_teacher,
    pair_weight,
)
from cmtool.objectives.distances import MetricOption, metric_called, pseudo_huber, pseudo_huber_of
from cmtool.objectives.noise_levels import PMeanOption, PStdOption
from cmtool.objectives.objective import (
    DecayOption,
    Requirements,
    RhoOption,
    SigmaDataOption,
    SigmaMaxOption,
    SigmaMinOption,
    SolverOption,
    StepsOption,
)
from cmtool.options import registry
from cmtool.options.plugin_option import Option
from cmtool.options.types import at_least, between

__all__ = ["adjacent_log_normal", "cd", "ct", "doubling_steps", "ict", "openai_ema_decay", "openai_steps"]

FirstStepsOption = Annotated[int, Option("discretization steps at the start of the run", at_least(1))]
LastStepsOption = Annotated[int, Option("discretization steps at the end of the run", at_least(1))]


def cd(
    teacher: Denoiser,
    *,
    steps: StepsOption = 18,
    solver: SolverOption = "heun",
    substeps: Annotated[int, Option("solver steps between two neighbouring noise levels", at_least(1))] = 1,
    metric: MetricOption = "l2",
    weight: PairWeightOption = "uniform",
    decay: DecayOption = 0.95,
    rho: RhoOption = 7.0,
    sigma_min: SigmaMinOption = 0.002,
    sigma_max: SigmaMaxOption = 80.0,
    sigma_data: SigmaDataOption = 0.5,
) -> Consistency:
    """Consistency distillation: neighbours on a Karras schedule, joined by solver steps along the teacher's ODE.

    Formula: ``loss = w(t) d(f(x_t, t), f^-(x_r, r))``, x_r where the teacher's ODE leads from x_t
    Paper: Song et al. 2023, arXiv 2303.01469, algorithm 2.
    Use: the reference of distillation; 'ecd' needs no target network and learns faster in short runs.

    The teacher's step has no noise in it, so l2 loses nothing, and a target that lags keeps errors from running up the
    schedule: without one (0, which the paper can afford over 400 million images) short runs spoil themselves.
    """
    return Consistency(
        pair=lambda u, progress: adjacent_pair(u, steps, sigma_min, sigma_max, rho),
        previous_point=along_teacher(teacher, registry.build("solvers", solver), substeps, rho),
        metric=metric_called(metric),
        weight=pair_weight(weight, sigma_data),
        decay=(lambda progress: decay) if decay else None,
        requirements=Requirements("consistency", sigma_min),
        teacher=teacher,
    )


CONVENTIONS = ("paper", "openai")


def ct(
    *,
    s0: FirstStepsOption = 2,
    s1: LastStepsOption = 150,
    decay: Annotated[float, Option("mu0 of the target's EMA decay; 0: the network itself", between(0, 1))] = 0.9,
    convention: Annotated[str, Option("whose N sets the decay of the target", choices=CONVENTIONS)] = "paper",
    metric: MetricOption = "l2",
    weight: PairWeightOption = "uniform",
    rho: RhoOption = 7.0,
    sigma_min: SigmaMinOption = 0.002,
    sigma_max: SigmaMaxOption = 80.0,
    sigma_data: SigmaDataOption = 0.5,
) -> Consistency:
    """Consistency training: neighbours on a Karras schedule that grows finer, joined along the noise of the image.

    Formula: ``loss = w(t) d(f(x + t z, t), f^-(x + r z, r))``
    Paper: Song et al. 2023, arXiv 2303.01469, algorithm 3 and appendix C.
    Use: the reference of training without a teacher; 'ict' and 'ect' are its successors.

    ``convention`` is "paper" or "openai", which differ in N by one.
    """
    if convention not in CONVENTIONS:
        raise unknown_name("convention", convention, CONVENTIONS)

    def n(progress: float) -> int:
        return openai_steps(progress, s0, s1)

    return Consistency(
        pair=lambda u, progress: adjacent_pair(u, n(progress), sigma_min, sigma_max, rho),
        previous_point=along_noise,
        metric=metric_called(metric),
        weight=pair_weight(weight, sigma_data),
        decay=(lambda progress: openai_ema_decay(n(progress), s0, decay, convention)) if decay else None,
        requirements=Requirements("consistency", sigma_min),
    )


def openai_steps(progress: float, s0: int, s1: int) -> int:
    """``N = ceil(sqrt(p ((s1 + 1)^2 - s0^2) + s0^2) - 1) + 1`` noise levels at progress p (ibid., appendix C)."""
    return max(math.ceil(math.sqrt(progress * ((s1 + 1) ** 2 - s0**2) + s0**2) - 1), 1) + 1


def openai_ema_decay(n: int, s0: int, rate: float, convention: str = "paper") -> float:
    """``mu = exp(s0 ln mu0 / N)``, the decay of the target; the code of the paper's authors takes N before its + 1."""
    return math.exp(s0 * math.log(rate) / (n if convention == "paper" else n - 1))


def ict(
    *,
    s0: FirstStepsOption = 10,
    s1: LastStepsOption = 1280,
    P_mean: PMeanOption = -1.1,
    P_std: PStdOption = 2.0,
    c: Annotated[float | None, Option("constant of the pseudo-Huber distance; 0.00054 sqrt(D) by default")] = None,
    weight: PairWeightOption = "gap",
    rho: RhoOption = 7.0,
    sigma_min: SigmaMinOption = 0.002,
    sigma_max: SigmaMaxOption = 80.0,
    sigma_data: SigmaDataOption = 0.5,
) -> Consistency:
    """Improved consistency training: no target network, the pseudo-Huber distance, and steps that double.

    Formula: ``loss = (sqrt(|f(x + t z, t) - f(x + r z, r)|^2 + c^2) - c) / (t - r)``
    Paper: Song and Dhariwal 2023, arXiv 2310.14189, section 3: eq. 7 and 8 (distance), 12 (steps), 13 (pairs).
    Use: long runs from random weights; 'ect' is cheaper from a score model.

    Neighbours of a Karras schedule whose steps double from ``s0`` to ``s1``, drawn as often as ln t is normal.
    """
    if not 1 <= s0 <= s1:
        raise UsageError(f"'ict' goes from few steps to more, not from {s0} to {s1}", "10 to 1280 is usual")

    def pair(u: Tensor, progress: float) -> tuple[Tensor, Tensor]:
        grid = karras(doubling_steps(progress, s0, s1), sigma_min, sigma_max, rho)
        return adjacent_log_normal(u, grid, P_mean, P_std)

    return Consistency(
        pair,
        along_noise,
        pseudo_huber if c is None else pseudo_huber_of(c),
        pair_weight(weight, sigma_data),
        requirements=Requirements("consistency", sigma_min),
    )


def doubling_steps(progress: float, s0: int, s1: int) -> int:
    """``N = min(s0 2^floor(p (log2 floor(s1/s0) + 1)), s1) + 1`` (Song and Dhariwal 2023, arXiv 2310.14189, eq. 12)."""
    stages = math.log2(s1 // s0) + 1
    return min(s0 * 2 ** math.floor(progress * stages), s1) + 1


def adjacent_log_normal(u: Tensor, grid: Tensor, P_mean: float, P_std: float) -> tuple[Tensor, Tensor]:
    """A pair of neighbours ``t > r`` of a descending ``grid`` [N], both [B].

    As likely as ``r < sigma < t`` where ``ln sigma ~ N(P_mean, P_std^2)`` (ibid., eq. 13).
    """
    rising = grid.to(u).flip(0)
    below = torch.special.ndtr((rising.log() - P_mean) / P_std)
    i = torch.searchsorted(below, below[0] + u * (below[-1] - below[0])).clamp(1, len(rising) - 1)
    return rising[i], rising[i - 1]
