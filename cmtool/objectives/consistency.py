"""One loss for a family of papers: CD, CT, ECT and their relatives differ in five choices.

    L = w(t, r) d(f(x_t, t), f^-(x_r, r)),    t > r two levels of one trajectory

`pair` chooses the levels, `back` leads from x_t to x_r (along the noise, or along the teacher's ODE), `metric` is d,
`weight` is w, and the target f^- is the model itself without gradient, or an average of its past.
"""

import copy
from collections.abc import Callable
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from cmtool.core.denoiser import Denoise, broadcast_like
from cmtool.core.sampling.loops import ode_field
from cmtool.core.sigma_schedules import karras_between
from cmtool.core.solvers import Solver, integrate
from cmtool.errors import unknown_name
from cmtool.objectives.distances import Metric
from cmtool.objectives.objective import Batch, Objective, ema_update

__all__ = [
    "Consistency",
    "Pair",
    "Point",
    "PreviousPoint",
    "Weight",
    "along_noise",
    "along_teacher",
    "constant_weight",
    "inverse_gap",
    "inverse_output",
    "pair_weight",
    "truncated_snr",
]

Pair = Callable[[Tensor, float], tuple[Tensor, Tensor]]  # (u [B], progress) -> (t [B], r [B])
PreviousPoint = Callable[[Tensor, Batch, Tensor, Tensor], Tensor]  # (x_t, batch, t, r) -> x_r
Weight = Callable[[Tensor, Tensor], Tensor]  # (t, r) -> [B]
Point = tuple[Tensor, Tensor]  # an image [B, ...] and its level [B]


def along_noise(x_t: Tensor, batch: Batch, t: Tensor, r: Tensor) -> Tensor:
    """``x + r z``: the same image and noise at the lower level, an unbiased step when the data are the teacher."""
    return batch.x + broadcast_like(r, x_t) * batch.z


def along_teacher(teacher: Denoise, solver: Solver, substeps: int = 1, rho: float = 7.0) -> PreviousPoint:
    """``substeps`` steps of ``solver`` along the teacher's probability-flow ODE, even in ``sigma^(1/rho)``."""

    @torch.no_grad()
    def back(x_t: Tensor, batch: Batch, t: Tensor, r: Tensor) -> Tensor:
        *_, x_r = integrate(ode_field(teacher, batch.labels), x_t, karras_between(t, r, substeps, rho), solver)
        return x_r

    return back


def constant_weight(t: Tensor, r: Tensor) -> Tensor:
    """``w = 1``."""
    return torch.ones_like(t)


def inverse_gap(t: Tensor, r: Tensor) -> Tensor:
    """``w = 1 / (t - r)`` (Song and Dhariwal 2023; Geng et al. 2024)."""
    return 1 / (t - r)


def truncated_snr(t: Tensor, r: Tensor) -> Tensor:
    """``w = max(1 / t^2, 1)`` (Salimans and Ho 2022, arXiv 2202.00512, section 4)."""
    return (t**-2).clamp(min=1)


def inverse_output(sigma_data: float, power: float = 1.0) -> Weight:
    """``w = 1 / c_out^power``: differences of the network's own output count alike at every level."""

    def weight(t: Tensor, r: Tensor) -> Tensor:
        return ((t**2 + sigma_data**2).sqrt() / (t * sigma_data)) ** power

    return weight


def pair_weight(name: str, sigma_data: float = 0.5) -> Weight:
    """The weight of a pair of levels called ``name``; UsageError when there is none.

    | name          | w(t, r)                  | it is                                      |
    |---------------|--------------------------|--------------------------------------------|
    | uniform       | 1                        | Song et al. 2023                           |
    | gap           | 1 / (t - r)              | iCT, ECT on CIFAR-10                       |
    | root-gap      | 1 / sqrt(t - r)          |                                            |
    | output        | 1 / c_out                | differences of F count alike, as a norm    |
    | variance      | 1 / c_out^2              | ECT on ImageNet                            |
    | snr           | 1 / t^2                  | OpenAI's names, from here on               |
    | snr+1         | 1 / t^2 + 1              |                                            |
    | karras        | 1 / t^2 + 1/sigma_data^2 | EDM's                                      |
    | truncated-snr | max(1 / t^2, 1)          | Salimans and Ho 2022                       |
    """
    weights: dict[str, Weight] = {
        "uniform": constant_weight,
        "gap": inverse_gap,
        "root-gap": lambda t, r: (t - r) ** -0.5,
        "output": inverse_output(sigma_data),
        "variance": inverse_output(sigma_data, 2),
        "snr": lambda t, r: t**-2,
        "snr+1": lambda t, r: t**-2 + 1,
        "karras": lambda t, r: t**-2 + sigma_data**-2,
        "truncated-snr": truncated_snr,
    }
    if name not in weights:
        raise unknown_name("weight", name, weights)
    return weights[name]


class Consistency(Objective):
    """The pairwise loss; ``decay(progress)`` is the EMA decay of a separate target, None to use the model itself."""

    kind = "consistency"

    def __init__(
        self,
        pair: Pair,
        previous_point: PreviousPoint,
        metric: Metric,
        weight: Weight = constant_weight,
        decay: Callable[[float], float] | None = None,
        sigma_min: float = 0.002,
        teacher: nn.Module | None = None,
    ):
        super().__init__()
        self.pair, self.previous_point, self.metric, self.weight, self.decay = (
            pair,
            previous_point,
            metric,
            weight,
            decay,
        )
        self.sigma_min = sigma_min
        self.target: nn.Module | None = None
        self.teacher = teacher  # held so that it moves to the device with the objective

    def begin(self, model: nn.Module) -> None:
        if self.decay:
            self.target = copy.deepcopy(model).requires_grad_(False)

    def loss(self, model: Denoise, batch: Batch, progress: float) -> Tensor:
        t, r = self.pair(batch.u, progress)
        x_t = batch.x + broadcast_like(t, batch.x) * batch.z
        x_r = self.previous_point(x_t, batch, t, r)
        with same_dropout(x_t.device) as again:
            online = model(x_t, t, batch.labels)
            again()
            with torch.no_grad():
                target = self.target_output(model, (x_t, t), (x_r, r), batch.labels)
        return self.weight(t, r).to(online) * self.metric(online, target)

    def target_output(self, model: Denoise, above: Point, below: Point, labels: Tensor | None) -> Tensor:
        """What ``f(x_t, t)`` is compared with: the target at r.

        At or below the boundary that is x_r itself, and ln r need not exist there.
        """
        x_r, r = below
        inside = r > self.sigma_min
        # r has no meaning for the others, so they get a level that the network can be asked about.
        target = (self.target or model)(x_r, torch.where(inside, r, torch.ones_like(r)), labels)
        return torch.where(broadcast_like(inside, x_r).bool(), target, x_r)

    def update(self, model: nn.Module, progress: float) -> None:
        if self.target is not None and self.decay is not None:
            ema_update(self.target, model, self.decay(progress))


@contextmanager
def same_dropout(device: torch.device):
    """Both passes must drop the same units; ``again()`` rewinds the device's generator to where the block began."""
    if device.type == "cuda":
        state = torch.cuda.get_rng_state(device)
        yield lambda: torch.cuda.set_rng_state(state, device)
    else:
        state = torch.get_rng_state()
        yield lambda: torch.set_rng_state(state)
