"""The training loop: a generator that yields after every step and leaves the rest to whoever walks it."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from cmtool.objectives.objective import Batch, Objective
from cmtool.training.ema import Average

__all__ = ["Report", "State", "train"]


@dataclass
class State:
    """Everything that training changes. ``images`` counts how many have been seen; it is the clock of a run."""

    model: nn.Module
    objective: Objective
    optimiser: torch.optim.Optimizer
    average: Average
    images: int = 0
    skipped: int = field(default=0)


@dataclass(frozen=True)
class Report:
    """One step: loss and gradient norm are tensors on the device, so that reading them is the reader's choice."""

    images: int
    loss: Tensor
    gradient: Tensor
    rate: float
    finite: bool


def train(
    state: State,
    batches: Iterator[Batch],
    total: int,
    rate: Callable[[int], float],
    seed: int = 0,
    clip: float = 0.0,
    micro: int | None = None,
    autocast: Callable[[], AbstractContextManager] = nullcontext,
) -> Iterator[Report]:
    """Step until ``total`` images have been seen.

    The loss of a step is the mean over its batch, gathered in pieces of ``micro`` images so that memory, not
    mathematics, depends on ``micro``. A step whose gradient is not finite is left out and counted, never patched.
    """
    parameters = [p for p in state.model.parameters() if p.requires_grad]
    device = parameters[0].device
    while state.images < total:
        batch = next(batches)
        progress = state.images / total
        torch.manual_seed(seed * 0x9E3779B1 + state.images)  # dropout, too, is a function of (run seed, n)
        state.model.train()
        state.optimiser.zero_grad(set_to_none=True)

        loss = torch.zeros((), device=device)
        for piece in batch.split(micro or len(batch)):
            piece = piece.to(device)
            with autocast():
                part = state.objective.loss(state.model, piece, progress).sum() / len(batch)
            part.backward()
            loss += part.detach()

        gradient = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if clip:
            nn.utils.clip_grads_with_norm_(parameters, clip, gradient)
        finite = bool(torch.isfinite(gradient))
        state.images += len(batch)
        learning_rate = rate(state.images - len(batch))
        if finite:
            for group in state.optimiser.param_groups:
                group["lr"] = learning_rate
            state.optimiser.step()
            state.objective.update(state.model, progress)
            state.average.update(state.model, len(batch), state.images)
        else:
            state.skipped += 1
        yield Report(state.images, loss, gradient, learning_rate, finite)
