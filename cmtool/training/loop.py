"""The training loop: a generator that yields after every step; and its state as tensors and numbers, for snapshots."""

from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import chain, repeat
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from cmtool.core.deterministic import worker_pool
from cmtool.objectives.objective import Batch, Objective
from cmtool.training.ema import EMA

__all__ = ["LoopConfig", "Report", "State", "pack", "train", "unpack"]


@dataclass
class State:
    """Everything that training changes. ``images`` counts how many have been seen; it is the clock of a run.

    ``others`` are further averages by name, which are kept beside the first. ``skipped`` steps had a gradient that was
    not finite, the last ``streak`` of them in a row. ``draws`` is the set of random draws: 0, and 1 after a rollback.
    """

    model: nn.Module
    objective: Objective
    optimizer: torch.optim.Optimizer
    average: EMA
    images: int = 0
    skipped: int = field(default=0)
    others: dict[str, EMA] = field(default_factory=dict)
    streak: int = 0
    draws: int = 0


@dataclass(frozen=True)
class Report:
    """One step: loss and gradient norm are tensors on the device, so that reading them is the reader's choice."""

    images: int
    loss: Tensor
    gradient: Tensor
    rate: float
    finite: bool


@dataclass(frozen=True)
class LoopConfig:
    """How steps are computed.

    ``seed``      of what the network itself draws, as for dropout
    ``clip``      largest norm of a gradient, 0 for none
    ``micro``     images at a time, None for the whole batch
    ``threads``   micro-batches at a time, on the processor
    ``autocast``  makes the context of a loss, for its precision
    """

    seed: int = 0
    clip: float = 0.0
    micro: int | None = None
    threads: int = 1
    autocast: Callable[[], AbstractContextManager] = nullcontext


def train(
    state: State,
    batches: Iterator[Batch],
    total: int,
    rate: Callable[[int], float],
    config: LoopConfig | None = None,
) -> Generator[Report, None, None]:
    """Step until ``total`` images have been seen, at the learning rate ``rate(images)``.

    The loss of a step is the mean over its batch. Its gradient is accumulated over micro-batches, some of them at
    a time on the processor, and added in order: the number of threads changes no bit of the result. A step whose
    gradient is not finite is left out and counted, never patched.
    """
    config = config or LoopConfig()
    gradient_of = MicrobatchGradient(state, config)
    projected = projected_layers(state, gradient_of.parameters)
    state.model.train()
    if state.images < total and not gradient_of.on_accelerator and config.threads > 1:
        first = next(batches)
        batches = chain([first], batches)
        gradient_of.uses_rng = uses_rng(state, first.split(1)[0], state.images / total)
    with worker_pool(1 if gradient_of.on_accelerator or gradient_of.uses_rng else config.threads) as work:
        while state.images < total:
            batch, progress = next(batches), state.images / total
            state.model.train()
            for layer in projected:
                layer.project()
            gradient = sum_gradients(gradient_of, work, batch, config.micro or len(batch), progress)
            yield step(state, gradient, rate(state.images), config.clip, progress)


class MicrobatchGradient:
    """The loss of a micro-batch and its gradient in all that is trained.

    ``uses_rng`` says whether that draws random numbers, as dropout does, from torch's own generator: all threads share
    that one. ``on_accelerator``: the device itself spreads the work.
    """

    def __init__(self, state: State, config: LoopConfig):
        self.state, self.config = state, config
        self.parameters = [p for p in state.model.parameters() if p.requires_grad] + state.objective.trained()
        self.device = self.parameters[0].device
        self.on_accelerator, self.uses_rng = self.device.type != "cpu", True

    def __call__(self, microbatch: Batch, n: int, size: int, progress: float) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The share in the mean over ``size`` images, of images of which the first is the n-th of the run."""
        if self.uses_rng:
            # dropout, too, is a function of (run seed, n)
            torch.manual_seed((self.config.seed * 0x9E3779B1 + self.state.draws * 0xC2B2AE3D27D4EB4F + n) % 2**64)
        with self.config.autocast():
            microbatch = microbatch.to(self.device)
            share = self.state.objective.loss(microbatch.condition(self.state.model), microbatch, progress).sum() / size
        return share.detach(), torch.autograd.grad(share, self.parameters, materialize_grads=True)


@dataclass(frozen=True)
class BatchGradient:
    """The mean loss of a batch of ``size`` images, and its gradient in each of ``parameters``."""

    parameters: list[nn.Parameter]
    loss: Tensor
    gradients: tuple[Tensor, ...]
    size: int


def sum_gradients(
    gradient_of: MicrobatchGradient,
    work: Callable[..., Iterator[Any]],
    batch: Batch,
    micro: int,
    progress: float,
) -> BatchGradient:
    """Loss and gradient of a batch, summed over its micro-batches in their order."""
    size, seen = len(batch), gradient_of.state.images
    shares = work(gradient_of, batch.split(micro), range(seen, seen + size, micro), repeat(size), repeat(progress))
    loss, gradients = next(shares)
    for more, others in shares:
        loss, gradients = loss + more, tuple(a + b for a, b in zip(gradients, others, strict=True))
    return BatchGradient(gradient_of.parameters, loss, gradients, size)


def step(state: State, batch: BatchGradient, rate: float, clip: float, progress: float) -> Report:
    """Change the weights, what the objective keeps and the averages, unless the gradient is not finite."""
    for parameter, gradient in zip(batch.parameters, batch.gradients, strict=True):
        parameter.grad = match_layout(gradient, parameter)
    norm = nn.utils.get_total_norm(batch.gradients)
    if clip:
        nn.utils.clip_grads_with_norm_(batch.parameters, clip, norm)
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


def uses_rng(state: State, microbatch: Batch, progress: float) -> bool:
    """Whether the loss draws random numbers of its own, as dropout does in whatever way it is written."""
    with torch.random.fork_rng(devices=[]):
        before = torch.get_rng_state()
        state.objective.loss(microbatch.condition(state.model), microbatch, progress)
        return not torch.equal(before, torch.get_rng_state())


OTHERS = "averages/"
COUNTERS = ("images", "skipped", "streak", "draws")


def pack(state: State) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and numbers of a state. A teacher is left out: it never changes and is named in the options."""
    tensors = {f"model.{k}": v for k, v in state.model.state_dict().items()}
    tensors |= {f"average.{k}": v for k, v in state.average.model.state_dict().items()}
    for name, average in state.others.items():
        tensors |= {f"{OTHERS}{name}/{k}": v for k, v in average.model.state_dict().items()}
    tensors |= {f"objective.{k}": v for k, v in _objective_tensors(state).items()}
    for i, moments in state.optimizer.state_dict()["state"].items():
        tensors |= {f"optimiser.{i}.{k}": torch.as_tensor(v) for k, v in moments.items()}
    return {k: v.detach().cpu() for k, v in tensors.items()}, {key: vars(state)[key] for key in COUNTERS}


def unpack(state: State, tensors: dict[str, Tensor], scalars: dict[str, Any]) -> None:
    """Put back what ``pack`` took; any error of torch or Python where that is of another run."""
    state.model.load_state_dict(_under("model.", tensors))
    state.average.model.load_state_dict(_under("average.", tensors))
    for name, average in state.others.items():
        average.model.load_state_dict(_under(f"{OTHERS}{name}/", tensors))
    state.objective.load_state_dict(state.objective.state_dict() | _under("objective.", tensors))
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in _under("optimiser.", tensors).items():
        i, _, key = name.partition(".")
        moments.setdefault(int(i), {})[key] = value
    _check(state, moments)
    state.optimizer.load_state_dict(state.optimizer.state_dict() | {"state": moments})
    counts = {key: _count(scalars[key]) for key in ("images", "skipped")}
    counts |= {key: _count(scalars.get(key, 0)) for key in ("streak", "draws")}  # which older states lack
    for key, count in counts.items():
        setattr(state, key, count)


def _check(state: State, moments: dict[int, dict[str, Tensor]]) -> None:
    """The optimizer takes moments of any shape, and fails in the next step; ValueError before that."""
    shapes = [parameter.shape for group in state.optimizer.param_groups for parameter in group["params"]]
    for i, given in moments.items():
        if not 0 <= i < len(shapes) or any(value.ndim and value.shape != shapes[i] for value in given.values()):
            raise ValueError(f"moments of parameter {i} have another shape")
    if len({frozenset(given) for given in moments.values()}) > 1:
        raise ValueError("a moment of a parameter is missing")


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError("a count of images is no whole number")
    return value


def _objective_tensors(state: State) -> dict[str, Tensor]:
    return {k: v for k, v in state.objective.state_dict().items() if not k.startswith("teacher.")}


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
