"""Multistep consistency distillation (mcd) and progressive distillation (pd): consistency within segments of sigma.

A network D that predicts x_0 jumps from t to s by DDIM, which is Euler's step in sigma. What it is compared with is
read backwards: the x_0 that makes the jump from x_t end where the jump from x_r does. One segment is consistency
distillation; segments without a level between their ends are progressive distillation.
Source: Heek et al. 2024, arXiv 2403.06807, algorithm 1.
Source of pd: Salimans and Ho 2022, arXiv 2202.00512, algorithm 2, here on a Karras schedule.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from cmtool.core.denoiser import Denoise, Denoiser, broadcast_like
from cmtool.core.sigma_schedules import karras
from cmtool.core.solvers import euler
from cmtool.errors import UsageError
from cmtool.objectives.consistency import Consistency, Point, along_teacher, pair_weight, truncated_snr
from cmtool.objectives.distances import metric_called
from cmtool.objectives.noise_levels import adjacent_pair, halving_steps
from cmtool.objectives.objective import Batch
from cmtool.options import registry

__all__ = ["Progressive", "Segments", "ddim_step", "mcd", "next_below", "pd"]


def ddim_step(x: Tensor, t: Tensor, s: Tensor, denoised: Tensor) -> Tensor:
    """``D + s/t (x - D)``: x at s from x at t (Song et al. 2021, arXiv 2010.02502, eq. 12)."""
    return denoised + broadcast_like(s / t, x) * (x - denoised)


def next_below(t: Tensor, grid: Tensor) -> Tensor:
    """The next level of a descending ``grid`` below each t, [B]."""
    rising = grid.to(t).flip(0)
    return rising[(torch.searchsorted(rising, t.contiguous()) - 1).clamp(min=0)]


class Segments(Consistency):
    """The pairwise loss of a denoiser whose jumps from t end where the segment that t lies in ends.

    ``boundaries()`` [K + 1] are the ends of the segments, descending; sampling takes K jumps. The target at or below
    the end of a segment is x_r itself.
    """

    kind = "score"

    def __init__(self, boundaries: Callable[[], Tensor], **choices: Any):
        super().__init__(**choices, sigma_min=0.0)
        self.boundaries = boundaries

    @property
    def sampling(self) -> list[float]:
        return self.boundaries()[:-1].tolist()

    def target_output(self, model: Denoise, above: Point, below: Point, labels: Tensor | None) -> Tensor:
        """The x_0 for which ``ddim_step(x_t, t, s, x_0) = jump(x_r, r, s, D(x_r, r))``."""
        (x_t, t), (x_r, r) = above, below
        s = next_below(t, self.boundaries())
        x_s = x_r if bool((r <= s).all()) else ddim_step(x_r, r, s, super().target_output(model, above, below, labels))
        x_s = torch.where(broadcast_like(r <= s, x_r).bool(), x_r, x_s)
        return x_t + broadcast_like(t / (t - s), x_t) * (x_s - x_t)


def mcd(
    teacher: Denoiser,
    *,
    segments: int = 2,
    steps: int = 18,
    solver: str = "heun",
    metric: str = "l2",
    decay: float = 0.95,
    rho: float = 7.0,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
) -> Segments:
    """Neighbours of a Karras grid of at least ``steps`` steps, compared where their one of K ``segments`` ends.

    The network stays one that predicts x_0; K jumps of it make an image, and one segment is consistency distillation.
    ``decay`` is that of the target, as for 'cd'. The weight is max(1/t^2, 1); the paper's aDDIM teacher, the growth of
    its number of steps and its cosine times are left out for the solvers and the grid of the other methods.
    """
    if not 1 <= segments <= steps:
        raise UsageError(f"'mcd' needs a step for each segment, not {steps} for {segments}", "18 for 2 is usual")
    each = -(-steps // segments)
    grid = karras(segments * each + 1, sigma_min, sigma_max, rho)
    return Segments(
        lambda: grid[::each],
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
            pair=lambda u, progress: adjacent_pair(u, int(self.steps) + 1, *grid),
            previous_point=self._two_steps,
            **choices,
        )
        self.first, self.last, self.rho = first, last, grid[2]
        self.register_buffer("steps", torch.tensor(first))

    def _two_steps(self, x_t: Tensor, batch: Batch, t: Tensor, r: Tensor) -> Tensor:
        teacher = self.teacher if int(self.steps) == self.first else self.guide
        return along_teacher(teacher, euler(), 2, self.rho)(x_t, batch, t, r)

    def begin(self, model: nn.Module) -> None:
        super().begin(model)
        self.guide = copy.deepcopy(model).eval().requires_grad_(False)

    def update(self, model: nn.Module, progress: float) -> None:
        """A stage begins with the step after the one that enters it, wherever the run is cut."""
        steps = halving_steps(progress, self.first, self.last)
        if steps < int(self.steps):
            self.guide.load_state_dict(model.state_dict())
            self.steps.fill_(steps)


def pd(
    teacher: Denoiser,
    *,
    first: int = 16,
    last: int = 1,
    metric: str = "l2",
    weight: str = "truncated-snr",
    rho: float = 7.0,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    sigma_data: float = 0.5,
) -> Progressive:
    """A student that takes ``first`` steps, then half as many, down to ``last``: stages of equal length.

    Those of 2 and of 1 step last twice as long. At level t of the grid with N steps the network is compared with the
    x_0 that a single step would have to know to end where two of the teacher's do (appendix G, in sigma); the weight is
    max(1/t^2, 1). The middle of a step lies in the middle of the Karras ramp, as OpenAI ran it in 2023.
    """
    ratio = first // last if last > 0 else 0
    if ratio & (ratio - 1) or ratio < 1 or ratio * last != first:
        raise UsageError(f"'pd' halves its steps, and {first} cannot be halved to {last}", "16 and 1 is usual")
    grid = sigma_min, sigma_max, rho
    return Progressive(
        first, last, grid, metric=metric_called(metric), weight=pair_weight(weight, sigma_data), teacher=teacher
    )
