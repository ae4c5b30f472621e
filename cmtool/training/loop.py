"""The training loop: a generator that yields after every step and leaves the rest to whoever walks it."""

from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, repeat
from typing import Any

import torch
from torch import Tensor, nn

from cmtool.core.denoiser import Denoise
from cmtool.core.workers import workers
from cmtool.objectives.objective import Batch, Objective
from cmtool.training.ema import Average

__all__ = ["Report", "State", "train"]


@dataclass
class State:
    """Everything that training changes. ``images`` counts how many have been seen; it is the clock of a run.

    ``others`` are further averages by name, which are kept beside the first.
    """

    model: nn.Module
    objective: Objective
    optimiser: torch.optim.Optimizer
    average: Average
    images: int = 0
    skipped: int = field(default=0)
    others: dict[str, Average] = field(default_factory=dict)


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
) -> Generator[Report, None, None]:
    """Step until ``total`` images have been seen.

    The loss of a step is the mean over its batch. Its gradient is gathered from pieces of ``micro`` images, ``threads``
    of them at a time on the processor, and added in order: the number of threads changes no bit of the result. A step
    whose gradient is not finite is left out and counted, never patched.
    """
    slope = Slope(state, seed, autocast)
    kept = projected(state, slope.parameters)
    state.model.train()
    if state.images < total and not slope.alone and threads > 1:
        first = next(batches)
        batches = chain([first], batches)
        slope.drawing = draws(state, first.split(1)[0], state.images / total)
    with workers(1 if slope.alone or slope.drawing else threads) as work:
        while state.images < total:
            batch, progress = next(batches), state.images / total
            state.model.train()
            for layer in kept:
                layer.project()
            loss, slopes = summed(slope, work, batch, micro or len(batch), progress)
            yield step(state, slope.parameters, loss, slopes, len(batch), rate(state.images), clip, progress)


class Slope:
    """The loss of a piece of a batch and its gradient in all that is trained.

    ``drawing`` says whether that draws random numbers, as dropout does, from torch's own generator: all threads share
    that one. ``alone``: the device itself spreads the work.
    """

    def __init__(self, state: State, seed: int, autocast: Callable[[], AbstractContextManager]):
        self.state, self.seed, self.autocast = state, seed, autocast
        self.parameters = [p for p in state.model.parameters() if p.requires_grad] + state.objective.trained()
        self.device = self.parameters[0].device
        self.alone, self.drawing = self.device.type != "cpu", True

    def __call__(self, piece: Batch, n: int, size: int, progress: float) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The share in the mean over ``size`` images, of images of which the first is the n-th of the run."""
        if self.drawing:
            torch.manual_seed((self.seed * 0x9E3779B1 + n) % 2**64)  # dropout, too, is a function of (run seed, n)
        with self.autocast():
            piece = piece.to(self.device)
            share = self.state.objective.loss(hinted(self.state.model, piece), piece, progress).sum() / size
        return share.detach(), torch.autograd.grad(share, self.parameters, materialize_grads=True)


def summed(
    slope: Slope, work: Callable[..., Iterator[Any]], batch: Batch, micro: int, progress: float
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Loss and gradient of a batch, of its pieces in their order."""
    size, seen = len(batch), slope.state.images
    shares = work(slope, batch.split(micro), range(seen, seen + size, micro), repeat(size), repeat(progress))
    loss, slopes = next(shares)
    for more, others in shares:
        loss, slopes = loss + more, tuple(a + b for a, b in zip(slopes, others, strict=True))
    return loss, slopes


def step(
    state: State,
    parameters: list[nn.Parameter],
    loss: Tensor,
    slopes: tuple[Tensor, ...],
    size: int,
    rate: float,
    clip: float,
    progress: float,
) -> Report:
    """Change the weights, what the objective keeps and the averages, unless the gradient is not finite."""
    for parameter, slope in zip(parameters, slopes, strict=True):
        parameter.grad = laid_out(slope, parameter)
    norm = nn.utils.get_total_norm(slopes)
    if clip:
        nn.utils.clip_grads_with_norm_(parameters, clip, norm)
    finite = bool(torch.isfinite(norm))
    state.images += size
    if finite:
        for group in state.optimiser.param_groups:
            group["lr"] = rate
        state.optimiser.step()
        state.objective.update(state.model, progress)
        for average in (state.average, *state.others.values()):
            average.update(state.model, size, state.images)
    else:
        state.skipped += 1
    return Report(state.images, loss, norm, rate, finite)


def projected(state: State, parameters: list[nn.Parameter]) -> list[Any]:
    """Trained layers that keep their weights on a sphere; ``project()`` puts them back there before each step."""
    own = {id(p) for p in parameters}
    layers = [*state.model.modules(), *state.objective.modules()]
    return [m for m in layers if hasattr(m, "project") and any(id(p) in own for p in m.parameters(recurse=False))]


def laid_out(slope: Tensor, parameter: Tensor) -> Tensor:
    """The gradient in the memory layout of its parameter, which fused optimisers take for granted."""
    return slope if slope.stride() == parameter.stride() else torch.empty_like(parameter).copy_(slope)


def draws(state: State, piece: Batch, progress: float) -> bool:
    """Whether the loss draws random numbers of its own, as dropout does in whatever way it is written."""
    with torch.random.fork_rng(devices=[]):
        before = torch.get_rng_state()
        state.objective.loss(hinted(state.model, piece), piece, progress)
        return not torch.equal(before, torch.get_rng_state())


def hinted(model: nn.Module, batch: Batch) -> Denoise:
    """The model that is told how the images of this batch were changed; objectives see one like any other."""
    return model if batch.hints is None else partial(model, hints=batch.hints)
