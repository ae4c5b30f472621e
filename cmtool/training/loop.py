"""The training loop: a generator that yields after every step and leaves the rest to whoever walks it."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import repeat

import torch
from torch import Tensor, nn

from cmtool.core.denoiser import Denoise
from cmtool.objectives.objective import Batch, Objective
from cmtool.training.ema import Average
from cmtool.training.workers import workers

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
    threads: int = 1,
    autocast: Callable[[], AbstractContextManager] = nullcontext,
) -> Iterator[Report]:
    """Step until ``total`` images have been seen.

    The loss of a step is the mean over its batch. Its gradient is gathered from pieces of ``micro`` images, ``threads``
    of them at a time on the processor, and added in order: the number of threads changes no bit of the result. A step
    whose gradient is not finite is left out and counted, never patched.
    """
    parameters = [p for p in state.model.parameters() if p.requires_grad] + state.objective.trained()
    device, dropping = parameters[0].device, drops(state.model)

    def gradient(piece: Batch, n: int, size: int, progress: float) -> tuple[Tensor, tuple[Tensor, ...]]:
        """A share of the loss and its gradient, from images of which the first is the n-th of the run."""
        if dropping:
            torch.manual_seed((seed * 0x9E3779B1 + n) % 2**64)  # dropout, too, is a function of (run seed, n)
        with autocast():
            piece = piece.to(device)
            share = state.objective.loss(hinted(state.model, piece), piece, progress).sum() / size
        return share.detach(), torch.autograd.grad(share, parameters, materialize_grads=True)

    alone = dropping or device.type != "cpu"  # dropout draws from a generator that all threads share
    with workers(1 if alone else threads) as work:
        while state.images < total:
            batch, progress = next(batches), state.images / total
            size = len(batch)
            state.model.train()
            numbers = range(state.images, state.images + size, micro or size)
            shares = work(gradient, batch.split(micro or size), numbers, repeat(size), repeat(progress))
            loss, slopes = next(shares)
            for more, others in shares:
                loss, slopes = loss + more, torch._foreach_add(slopes, others)
            for parameter, slope in zip(parameters, slopes, strict=True):
                parameter.grad = slope

            norm = nn.utils.get_total_norm(slopes)
            if clip:
                nn.utils.clip_grads_with_norm_(parameters, clip, norm)
            learning_rate, finite = rate(state.images), bool(torch.isfinite(norm))
            state.images += size
            if finite:
                for group in state.optimiser.param_groups:
                    group["lr"] = learning_rate
                state.optimiser.step()
                state.objective.update(state.model, progress)
                state.average.update(state.model, size, state.images)
            else:
                state.skipped += 1
            yield Report(state.images, loss, norm, learning_rate, finite)


def hinted(model: nn.Module, batch: Batch) -> Denoise:
    """The model that is told how the images of this batch were changed; objectives see one like any other."""
    return model if batch.hints is None else partial(model, hints=batch.hints)


def drops(model: nn.Module) -> bool:
    """Whether the model draws random numbers of its own."""
    return any(isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0 for module in model.modules())
