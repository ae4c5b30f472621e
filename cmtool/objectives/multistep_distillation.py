"""Multistep consistency distillation (mcd) and progressive distillation (pd): consistency within segments of sigma.

A network D that predicts x_0 steps from t to s by DDIM, which is Euler's step in sigma. What it is compared with is
read backwards: the x_0 that makes the step from x_t end where the step from x_r does. One segment is consistency
distillation; segments without a noise level between their ends are progressive distillation.
Source: Heek et al. 2024, arXiv 2403.06807, algorithm 1.
Source of pd: Salimans and Ho 2022, arXiv 2202.00512, algorithm 2, on a Karras schedule instead.
"""

import copy
from collections.abc import Callable
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from cmtool.core.denoiser import Denoise, Denoiser, broadcast_like
from cmtool.core.sigma_schedules import karras
from cmtool.errors import UsageError
from cmtool.objectives.consistency import (
    Consistency,
    PairWeightOption,
    Point,
    adjacent_pair,
    along_teacher,
    pair_weight,
    truncated_snr,
)
from cmtool.objectives.distances import MetricOption, metric_called
from cmtool.objectives.objective import (
    Batch,
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
from cmtool.options.types import at_least

__all__ = ["Progressive", "Segments", "ddim_step", "halving_steps", "mcd", "next_below", "pd"]


def ddim_step(x: Tensor, t: Tensor, s: Tensor, denoised: Tensor) -> Tensor:
    """``D + s/t (x - D)``: x at s from x at t (Song et al. 2021, arXiv 2010.02502, eq. 12)."""
    return denoised + broadcast_like(s / t, x) * (x - denoised)


def next_below(t: Tensor, grid: Tensor) -> Tensor:
    """The next noise level of a descending ``grid`` below each t, [B]."""
    rising = grid.to(t).flip(0)
    return rising[(torch.searchsorted(rising, t.contiguous()) - 1).clamp(min=0)]


class Segments(Consistency):
    """The pairwise loss of a denoiser whose steps from t end where the segment that t lies in ends.

    ``boundaries()`` [K + 1] are the ends of the segments, descending; sampling takes K steps. The target at or below
    the end of a segment is x_r itself; where each segment is ``one_step`` it always is, and no network is called.
    """

    def __init__(self, boundaries: Callable[[], Tensor], one_step: bool = False, **choices: Any):
        super().__init__(**choices, requirements=Requirements("score"))
        self.boundaries, self.one_step = boundaries, one_step

    @property
    def sampling_sigmas(self) -> list[float]:
        return self.boundaries()[:-1].tolist()

    def target_output(self, model: Denoise, above: Point, below: Point, batch: Batch) -> Tensor:
        """The x_0 for which ``ddim_step(x_t, t, s, x_0) = ddim_step(x_r, r, s, D(x_r, r))``."""
        (x_t, t), (x_r, r) = above, below
        s = next_below(t, self.boundaries())
        x_s = x_r if self.one_step else ddim_step(x_r, r, s, super().target_output(model, above, below, batch))
        x_s = torch.where(broadcast_like(r <= s, x_r).bool(), x_r, x_s)
        return x_t + broadcast_like(t / (t - s), x_t) * (x_s - x_t)


def mcd(
    teacher: Denoiser,
    *,
    segments: Annotated[int, Option("K, segments of sigma and steps of sampling", at_least(1))] = 2,
    steps: StepsOption = 18,
    solver: SolverOption = "heun",
    metric: MetricOption = "l2",
    decay: DecayOption = 0.95,
    rho: RhoOption = 7.0,
    sigma_min: SigmaMinOption = 0.002,
    sigma_max: SigmaMaxOption = 80.0,
) -> Segments:
    """Multistep consistency distillation: consistency within K segments of sigma, for samples of K steps.

    Formula: ``loss = max(1/t^2, 1) d(D(x_t, t), x~)``, ``ddim(x_t, t, s, x~) = ddim(x_r, r, s, D^-(x_r, r))``,
    s the end of the segment that t and r lie in
    Paper: Heek et al. 2024, arXiv 2403.06807, algorithm 1.
    Use: when a few steps may be spent on a sample, of which each has less to learn.

    Neighbours of a Karras schedule of at least ``steps`` steps. The network stays one that predicts x_0; one segment is
    consistency distillation. The paper's aDDIM teacher, the growth of its number of steps and its cosine times are left
    out for the solvers and the schedule of the other methods.
    """
    if not 1 <= segments <= steps:
        raise UsageError(f"'mcd' needs a step for each segment, not {steps} for {segments}", "18 for 2 is usual")
    each = -(-steps // segments)
    grid = karras(segments * each + 1, sigma_min, sigma_max, rho)
    return Segments(
        lambda: grid[::each],
        each == 1,
        pair=lambda u, progress: adjacent_pair(u, len(grid), sigma_min, sigma_max, rho),
        previous_point=along_teacher(teacher, registry.build("solvers", solver)),
        metric=metric_called(metric),
        weight=truncated_snr,
        decay=(lambda progress: decay) if decay else None,
        teacher=teacher,
    )


class Progressive(Segments):
    """One step of the student is two of its teacher's, which is the student as it was when the steps last halved.

    That ``guide`` and the number of steps change with training, so they belong to its snapshot.
    """

    teacher: nn.Module  # of the first stage
    guide: nn.Module
    steps: Tensor

    def __init__(self, first: int, last: int, grid: tuple[float, float, float], **choices: Any):
        super().__init__(
            lambda: karras(int(self.steps) + 1, *grid),
            True,
            pair=lambda u, progress: adjacent_pair(u, int(self.steps) + 1, *grid),
            previous_point=self._two_steps,
            **choices,
        )
        self.first, self.last, self.rho = first, last, grid[2]
        self.euler = registry.build("solvers", "euler")
        self.register_buffer("steps", torch.tensor(first))

    def _two_steps(self, x_t: Tensor, batch: Batch, t: Tensor, r: Tensor) -> Tensor:
        teacher = self.teacher if int(self.steps) == self.first else self.guide
        return along_teacher(teacher, self.euler, 2, self.rho)(x_t, batch, t, r)

    def begin(self, model: nn.Module) -> None:
        super().begin(model)
        self.guide = copy.deepcopy(model).eval().requires_grad_(False)

    def update(self, model: nn.Module, progress: float) -> None:
        """A stage begins with the step after the one that enters it, wherever the run is resumed."""
        steps = halving_steps(progress, self.first, self.last)
        if steps < int(self.steps):
            self.guide.load_state_dict(model.state_dict())
            self.steps.fill_(steps)


def pd(
    teacher: Denoiser,
    *,
    first: Annotated[int, Option("steps of the student at first, a power of 2 times the last", at_least(1))] = 16,
    last: Annotated[int, Option("steps of the student at last", at_least(1))] = 1,
    metric: MetricOption = "l2",
    weight: PairWeightOption = "truncated-snr",
    rho: RhoOption = 7.0,
    sigma_min: SigmaMinOption = 0.002,
    sigma_max: SigmaMaxOption = 80.0,
    sigma_data: SigmaDataOption = 0.5,
) -> Progressive:
    """Progressive distillation: one step of the student is two of its teacher's, and the steps halve during training.

    Formula: ``loss = max(1/t^2, 1) |D(x_t, t) - x~|^2``, ``ddim(x_t, t, s, x~)`` where two steps of the teacher end
    Paper: Salimans and Ho 2022, arXiv 2202.00512, algorithm 2 and appendix G, on a Karras schedule instead.
    Use: as the baseline that consistency models are compared with.

    From ``first`` steps to ``last``, in stages of equal length, of which those of 2 and of 1 step last twice as long.
    The middle of a step lies in the middle of the Karras ramp, as OpenAI ran it in 2023.
    """
    ratio = first // last if last > 0 else 0
    if ratio & (ratio - 1) or ratio < 1 or ratio * last != first:
        raise UsageError(f"'pd' halves its steps, and {first} cannot be halved to {last}", "16 and 1 is usual")
    grid = sigma_min, sigma_max, rho
    return Progressive(
        first, last, grid, metric=metric_called(metric), weight=pair_weight(weight, sigma_data), teacher=teacher
    )


def halving_steps(progress: float, first: int, last: int = 1) -> int:
    """N at progress p when N halves from ``first`` to ``last`` in equal stages, those of 2 and 1 steps twice as long.

    As in the code of Song et al. 2023.
    """
    stages = [first >> k for k in range((first // last).bit_length())]
    weighted = [n for n in stages for _ in range(2 if n <= 2 else 1)]
    return weighted[min(int(progress * len(weighted)), len(weighted) - 1)]
