"""Everything that training changes, and the same as tensors and numbers, for snapshots."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from cmtool.objectives.objective import Objective
from cmtool.training.ema import EMA

__all__ = ["State", "pack", "unpack"]


@dataclass
class State:
    """Everything that training changes. ``images`` counts how many have been seen; it is the clock of a run.

    ``others`` are further averages by name, which are kept beside the first. ``micro`` is the micro-batch that fits,
    where memory has run out with the one that was asked for. ``skipped`` steps had a gradient that was not finite, the
    last ``streak`` of them in a row. ``draws`` is the set of random draws: 0, and 1 after a rollback.
    """

    model: nn.Module
    objective: Objective
    optimizer: torch.optim.Optimizer
    average: EMA
    images: int = 0
    skipped: int = field(default=0)
    others: dict[str, EMA] = field(default_factory=dict)
    micro: int | None = None
    streak: int = 0
    draws: int = 0


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
    scalars: dict[str, Any] = {key: vars(state)[key] for key in COUNTERS}
    if state.micro:
        scalars["micro"] = state.micro
    return {k: v.detach().cpu() for k, v in tensors.items()}, scalars


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
    state.images, state.skipped = (_count(scalars[key]) for key in ("images", "skipped"))
    state.streak, state.draws = (_count(scalars.get(key, 0)) for key in ("streak", "draws"))  # older states have none
    state.micro = _count(scalars["micro"]) or None if "micro" in scalars else None


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
