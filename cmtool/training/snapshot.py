"""Everything that training changes, as named tensors and plain numbers, so that a run can be taken up again."""

from typing import Any

import torch
from torch import Tensor

from cmtool.training.loop import State

__all__ = ["pack", "unpack"]

OTHERS = "averages/"


def pack(state: State) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and numbers of a state. A teacher is left out: it never changes and is named in the options."""
    tensors = {f"model.{k}": v for k, v in state.model.state_dict().items()}
    tensors |= {f"average.{k}": v for k, v in state.average.model.state_dict().items()}
    for name, average in state.others.items():
        tensors |= {f"{OTHERS}{name}/{k}": v for k, v in average.model.state_dict().items()}
    tensors |= {f"objective.{k}": v for k, v in _own(state).items()}
    for i, moments in state.optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{i}.{k}": torch.as_tensor(v) for k, v in moments.items()}
    return {k: v.detach().cpu() for k, v in tensors.items()}, {"images": state.images, "skipped": state.skipped}


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
    state.optimiser.load_state_dict(state.optimiser.state_dict() | {"state": moments})
    state.images, state.skipped = (_count(scalars[key]) for key in ("images", "skipped"))


def _check(state: State, moments: dict[int, dict[str, Tensor]]) -> None:
    """The optimiser takes moments of any shape, and fails in the next step; ValueError before that."""
    shapes = [parameter.shape for group in state.optimiser.param_groups for parameter in group["params"]]
    for i, given in moments.items():
        if not 0 <= i < len(shapes) or any(value.ndim and value.shape != shapes[i] for value in given.values()):
            raise ValueError(f"moments of parameter {i} have another shape")
    if len({frozenset(given) for given in moments.values()}) > 1:
        raise ValueError("a moment of a parameter is missing")


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError("a count of images is no whole number")
    return value


def _own(state: State) -> dict[str, Tensor]:
    return {k: v for k, v in state.objective.state_dict().items() if not k.startswith("teacher.")}


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
