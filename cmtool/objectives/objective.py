"""What a training method is: the batch it sees, what it requires, its loss, and the update of a target network."""

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from cmtool.core.denoiser import PARAMETERIZATIONS, AugmentedDenoiser, Denoise, Preconditioning
from cmtool.core.sharded_tensors import by_kind
from cmtool.options.plugin_option import Option
from cmtool.options.types import at_least, between, positive

__all__ = [
    "Batch",
    "DecayOption",
    "Objective",
    "PreconditioningOption",
    "Requirements",
    "RhoOption",
    "SigmaDataOption",
    "SigmaMaxOption",
    "SigmaMinOption",
    "SolverOption",
    "StepsOption",
    "ema_update",
    "same_dropout",
]

# Options that objectives of several families have.
SigmaMinOption = Annotated[float, Option("lowest noise level", positive())]
SigmaMaxOption = Annotated[float, Option("highest noise level", positive())]
SigmaDataOption = Annotated[float, Option("standard deviation of the data in [-1, 1]", positive())]
RhoOption = Annotated[float, Option("exponent of the Karras schedule: 1 is even in sigma", positive())]
StepsOption = Annotated[int, Option("noise levels of the Karras schedule", at_least(2))]
SolverOption = Annotated[str, Option("ODE solver that follows the teacher")]
DecayOption = Annotated[
    float, Option("EMA decay of the target network; 0: the target is the network itself", between(0, 1))
]
PreconditioningOption = Annotated[str, Option("what the network predicts", choices=tuple(PARAMETERIZATIONS))]


@dataclass(frozen=True)
class Batch:
    """Images with the randomness that belongs to them: the n-th image of a run always has the same z and u.

    ``x`` [B, ...] in [-1, 1]; ``z`` [B, ...] normal; ``u`` [B] uniform on (0, 1), float64; ``labels`` [B] or None;
    ``augment_labels`` [B, K], how the images were augmented, or None; ``v`` [B, ...] normal, for objectives with
    ``probes``; ``others`` [M, ...] and their ``classes`` [M], images of the run that all micro-batches see, these
    among them.
    """

    x: Tensor
    z: Tensor
    u: Tensor
    labels: Tensor | None = None
    augment_labels: Tensor | None = None
    v: Tensor | None = None
    others: Tensor | None = None
    classes: Tensor | None = None

    def __len__(self) -> int:
        return len(self.x)

    def select(self, rows: slice | Tensor) -> "Batch":
        """Some of the images, with all that belongs to them."""
        whole = {"others", "classes"}
        return replace(self, **{k: v[rows] for k, v in vars(self).items() if v is not None and k not in whole})

    def split(self, size: int) -> list["Batch"]:
        """Micro-batches of at most ``size`` images."""
        return [self.select(slice(i, i + size)) for i in range(0, len(self), size)]

    def to(self, device: torch.device) -> "Batch":
        return replace(self, **{k: v.to(device, non_blocking=True) for k, v in vars(self).items() if v is not None})

    def condition(self, model: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """``model`` with the augment labels of these images; itself where they were not augmented.

        The training loop does so to the model; an objective does it to the networks of its own.
        """
        return model if self.augment_labels is None else AugmentedDenoiser(model, self.augment_labels)


@dataclass(frozen=True)
class Requirements:
    """What an objective needs, and what kind of model it makes.

    ``kind``                   "score", a model of the mean of x_0, or "consistency", one of the end of the ODE
    ``sigma_min``              the boundary of the preconditioning: a consistency model is the identity there
    ``preconditioning``        what the network predicts, where the objective says so
    ``target_sigma``           whether the network takes the noise level that a step leads to (``core/flow_map.py``)
    ``probes``                 whether the loss needs a second normal draw, ``Batch.v``
    ``others``                 how many images of the run the loss sees beside its own, ``Batch.others``
    ``points_per_trajectory``  how many images in a row of the run are one image with one noise, at several noise levels
    ``starts_from``            the kind of model that training must start from, None for any or none
    ``lowest_sigma``           the noise level below which the model is not trained, where that is above ``sigma_min``
    ``sampling_sigmas``        the noise levels that sampling should visit, as in the header of a checkpoint
    ``differentiates_twice``   whether the loss itself takes a gradient: sharded weights then stay whole until its own
    """

    kind: Literal["score", "consistency"] = "score"
    sigma_min: float = 0.0
    preconditioning: Preconditioning | None = None
    target_sigma: bool = False
    probes: bool = False
    others: int = 0
    points_per_trajectory: int = 1
    starts_from: str | None = None
    lowest_sigma: float = 0.0
    sampling_sigmas: tuple[float, ...] = ()
    differentiates_twice: bool = False


class Objective(nn.Module):
    """A loss per image, a pure function of (weights, batch, progress in [0, 1]).

    A module because some carry networks of their own: a frozen teacher, an averaged target. ``requirements`` are
    settled at construction.
    """

    def __init__(self, requirements: Requirements | None = None):
        super().__init__()
        self.requirements = requirements or Requirements()

    @property
    def sampling_sigmas(self) -> list[float]:
        """Those of the requirements; an objective whose steps change while it trains has others."""
        return list(self.requirements.sampling_sigmas)

    def begin(self, model: nn.Module) -> None:
        """Called once with the model as it starts."""

    def trained(self) -> list[nn.Parameter]:
        """Parameters of its own that are trained beside those of the model; none, as a rule."""
        return []

    def uneven(self) -> list[nn.Module]:
        """Networks of its own that one batch calls more often than another: where weights are sharded these stay whole.

        The others are called by all ranks equally often, whatever images each has.
        """
        return []

    def loss(self, model: Denoise, batch: Batch, progress: float) -> Tensor:
        """The loss of each image, [B]."""
        raise NotImplementedError

    def update(self, model: nn.Module, progress: float) -> None:
        """Called after each step of the optimizer."""


@torch.no_grad()
def ema_update(average: nn.Module, model: nn.Module, decay: float) -> None:
    """``average <- decay average + (1 - decay) model`` for every parameter; buffers are copied."""
    for ours, theirs in by_kind(average.parameters(), model.parameters()):
        torch._foreach_lerp_(ours, theirs, 1 - decay)  # pyright: ignore - one kernel for all, but no public name
    for mine, other in zip(average.buffers(), model.buffers(), strict=True):
        mine.copy_(other)


@contextmanager
def same_dropout(device: torch.device) -> Any:
    """Two passes that must drop the same units; ``again()`` rewinds the device's generator to where the block began."""
    if device.type == "cuda":
        state = torch.cuda.get_rng_state(device)
        yield lambda: torch.cuda.set_rng_state(state, device)
    else:
        state = torch.get_rng_state()
        yield lambda: torch.set_rng_state(state)
