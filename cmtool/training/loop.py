"""The training loop: a generator that yields after every step."""

from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from cmtool.core.sharded_tensors import scale_to_norm, total_norm
from cmtool.errors import Advice, Hint, Setting
from cmtool.objectives.objective import Batch
from cmtool.training.agreement import idle_ranks, prepare_together
from cmtool.training.data_parallel import ddp_gradients
from cmtool.training.gradients import (
    BatchGradient,
    Engine,
    Feed,
    LoopConfig,
    exact_gradients,
    exact_rows,
    micro_batch_of,
)
from cmtool.training.sharded_gradients import sharded_gradients
from cmtool.training.state import State
from cmtool.training.summation_tree import share_of

__all__ = ["LoopConfig", "Report", "State", "first_rows", "train"]


@dataclass(frozen=True)
class Report:
    """One step: loss and gradient norm are tensors on the device, so that reading them is the reader's choice.

    ``polled`` is what the ranks agreed on, ``LoopConfig.poll``; ``remarks`` are for people.
    """

    images: int
    loss: Tensor
    gradient: Tensor
    rate: float
    finite: bool
    polled: tuple[int, ...] = ()
    remarks: tuple[Advice, ...] = ()


ENGINES: dict[str, Callable[[State, Feed, LoopConfig, float], AbstractContextManager[Engine]]] = {
    "exact": exact_gradients,
    "ddp": ddp_gradients,
    "fsdp": sharded_gradients,
}


def train(
    state: State,
    batches: Iterator[Batch] | Feed,
    total: int,
    rate: Callable[[int], float],
    config: LoopConfig | None = None,
) -> Generator[Report, None, None]:
    """Step until ``total`` images have been seen, at the learning rate ``rate(images)``.

    The loss of a step is the mean over its batch. Its gradient is accumulated over micro-batches, some of them at
    a time on the processor, and added in a fixed order: neither threads nor, in exact mode, ranks change a bit of the
    result. A step whose gradient is not finite is left out and counted, never patched. A step for which memory runs
    out is made again with micro-batches of half the size, and so are all after it. An error of one rank ends all at
    the same step: there it is raised as it is, on the others as LostRank. Until all ranks have their part of a
    gradient nothing has changed.
    """
    config, feed = config or LoopConfig(), InTurn(batches) if isinstance(batches, Iterator) else batches
    if state.images >= total:
        return
    kind = kind_of(config)
    state.model.train()
    with ENGINES[kind](state, feed, config, state.images / total) as engine:
        projected = projected_layers(state, engine.parameters)
        remarks = [*idle_ranks(kind, config, -(-feed.size // micro_batch_of(state, config, feed.size)))]
        while state.images < total:
            progress, before = state.images / total, state.micro
            state.model.train()
            for layer in projected:
                layer.project()
            polled = prepare_together(engine, state, config, feed.size, progress)
            if state.micro != before:
                remarks += [Hint("memory ran out; from here on training has {}", Setting("micro_batch", state.micro))]
            report = step(state, engine.reduce(), rate(state.images), config.clip, progress)
            yield replace(report, polled=polled, remarks=tuple(remarks))
            remarks = []


def kind_of(config: LoopConfig) -> str:
    return config.parallel if config.ranks.size > 1 else "exact"


def first_rows(state: State, config: LoopConfig, size: int) -> range | None:
    """The images that this rank will ask for of a batch of ``size`` images; None for all, or for none."""
    if kind_of(config) == "exact":
        return exact_rows(config.ranks, size, micro_batch_of(state, config, size)) or None
    return share_of(config.ranks.rank, config.ranks.size, size) or None


class InTurn:
    """Batches of one size that come one after the other."""

    def __init__(self, batches: Iterator[Batch]):
        self.batches, self.batch = batches, next(batches)
        self.size, self.place = len(self.batch), -1

    def get(self, n: int, rows: range | None = None) -> Batch:
        """The next batch, or again the last one where n is the same."""
        if self.place not in (-1, n):
            self.batch = next(self.batches)
        self.place = n
        return self.batch if rows is None else self.batch.select(slice(rows.start, rows.stop))


def step(state: State, batch: BatchGradient, rate: float, clip: float, progress: float) -> Report:
    """Change the weights, what the objective keeps and the averages, unless the gradient is not finite.

    The gradient is that of all ranks, so each makes the same step. An error in here leaves a state that must not be
    saved.
    """
    for parameter, gradient in zip(batch.parameters, batch.gradients, strict=True):
        parameter.grad = match_layout(gradient, parameter)
    norm = total_norm(batch.gradients)
    if clip:
        scale_to_norm(batch.parameters, clip, norm)
    finite = bool(torch.isfinite(norm))
    state.images += batch.size
    state.streak = 0 if finite else state.streak + 1
    if finite:
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        state.optimizer.step()
        state.objective.update(state.model, progress)
        for average in (state.average, *state.others.values()):
            average.update(state.model, batch.size, state.images)
    else:
        state.skipped += 1
    return Report(state.images, batch.loss, norm, rate, finite)


@runtime_checkable
class Projected(Protocol):
    """A layer that keeps its weights on a sphere: ``project()`` puts them back there, before each step."""

    def project(self) -> None: ...


def projected_layers(state: State, parameters: list[nn.Parameter]) -> list[Projected]:
    """The layers of the model and of the objective whose trained weights are to be projected."""
    own, found = {id(p) for p in parameters}, []
    for layer in (*state.model.modules(), *state.objective.modules()):
        if isinstance(layer, Projected) and any(id(p) in own for p in layer.parameters(recurse=False)):
            found.append(layer)
    return found


def match_layout(gradient: Tensor, parameter: Tensor) -> Tensor:
    """The gradient in the memory layout of its parameter, which fused optimizers take for granted."""
    return gradient if gradient.stride() == parameter.stride() else torch.empty_like(parameter).copy_(gradient)
