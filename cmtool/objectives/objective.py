"""What a training method is: the batch it sees, the loss, and the update of a target network."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from cmtool.core.denoiser import Denoise, Preconditioning

__all__ = ["Batch", "Objective", "ema_update"]


@dataclass(frozen=True)
class Batch:
    """Images with the randomness that belongs to them: the n-th image of a run always meets the same noise and level.

    ``x`` [B, ...] in [-1, 1]; ``z`` [B, ...] normal; ``u`` [B] uniform on (0, 1), float64; ``labels`` [B] or None;
    ``hints`` [B, K], how the images were changed, or None; ``v`` [B, ...] normal, for objectives with ``probes``;
    ``others`` [M, ...] and their ``classes`` [M], images of the run that all pieces of a batch see, these among them.
    """

    x: Tensor
    z: Tensor
    u: Tensor
    labels: Tensor | None = None
    hints: Tensor | None = None
    v: Tensor | None = None
    others: Tensor | None = None
    classes: Tensor | None = None

    def __len__(self) -> int:
        return len(self.x)

    def split(self, size: int) -> list["Batch"]:
        """Pieces of at most ``size`` images."""
        pieces, whole = range(0, len(self), size), {"others", "classes"}
        cut = {k: v for k, v in vars(self).items() if v is not None and k not in whole}
        return [replace(self, **{k: v[i : i + size] for k, v in cut.items()}) for i in pieces]

    def to(self, device: torch.device) -> "Batch":
        return replace(self, **{k: v.to(device, non_blocking=True) for k, v in vars(self).items() if v is not None})


class Objective(nn.Module):
    """A loss per image, a pure function of (weights, batch, progress in [0, 1]).

    A module because some carry networks of their own: a frozen teacher, an averaged target.
    """

    kind = "score"  # what comes out: a model of the mean of x_0 ("score") or of the end of the ODE ("consistency")
    sigma_min = 0.0  # the boundary of the preconditioning that the model is trained with
    preconditioning: Preconditioning | None = None  # what the network predicts, where the method says so
    hints = 0  # how many numbers say where a jump leads, for networks that jump to any level (core/flow_map.py)
    probes = False  # whether the loss wants a second normal draw, ``Batch.v``
    others = 0  # how many images of the run the loss wants to see beside its own, ``Batch.others``
    sharing = 1  # how many images in a row of the run are one picture with one noise, at several levels
    starts_from: str | None = None  # the kind of model that training must start from
    lowest = 0.0  # the level below which the model is not trained, where that is above sigma_min

    @property
    def sampling(self) -> list[float]:
        """The noise levels that sampling should visit, as in the header of a checkpoint; none, as a rule."""
        return []

    def begin(self, model: nn.Module) -> None:
        """Called once with the model as it starts."""

    def trained(self) -> list[nn.Parameter]:
        """Parameters of its own that are trained beside those of the model; none, as a rule."""
        return []

    def loss(self, model: Denoise, batch: Batch, progress: float) -> Tensor:
        """The loss of each image, [B]."""
        raise NotImplementedError

    def update(self, model: nn.Module, progress: float) -> None:
        """Called after each step of the optimiser."""


@torch.no_grad()
def ema_update(average: nn.Module, model: nn.Module, decay: float) -> None:
    """``average <- decay average + (1 - decay) model`` for every parameter; buffers are copied."""
    ours, theirs = list(average.parameters()), list(model.parameters())
    torch._foreach_lerp_(ours, theirs, 1 - decay)  # pyright: ignore - one kernel for all of them, but no public name
    for mine, other in zip(average.buffers(), model.buffers(), strict=True):
        mine.copy_(other)
