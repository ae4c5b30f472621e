"""Everything that training changes, and the same as tensors and numbers, for snapshots."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from cmtool.core.sharded_tensors import ShardedTensor, full_tensor, shard_like
from cmtool.objectives.objective import Objective
from cmtool.training.ema import EMA

__all__ = ["Sharding", "State", "make_room", "pack", "pack_whole", "unpack"]


@dataclass(frozen=True)
class Sharding:
    """What a state whose weights are sharded no longer says of itself.

    ``outline``     the model without the values of its weights
    ``parameters``  what the optimizer trains, in the order in which it numbers them where they are whole
    """

    outline: nn.Module
    parameters: list[nn.Parameter]


@dataclass
class State:
    """Everything that training changes. ``images`` counts how many have been seen; it is the clock of a run.

    ``others`` are further averages by name, which are kept beside the first. ``micro`` is the micro-batch that fits,
    where memory has run out with the one that was asked for. ``skipped`` steps had a gradient that was not finite, the
    last ``streak`` of them in a row. ``draws`` is the set of random draws: 0, and 1 after a rollback.
    ``sharding`` is there where the ranks share the weights (``training/sharding.py``).
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
    sharding: Sharding | None = None


OTHERS = "averages/"
COUNTERS = ("images", "skipped", "streak", "draws")


def pack(state: State) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors, in the memory of the processor, and numbers of a state; what is sharded stays so, where it is.

    A teacher is left out: it never changes and is named in the options.
    """
    scalars: dict[str, Any] = {key: vars(state)[key] for key in COUNTERS}
    if state.micro:
        scalars["micro"] = state.micro
    found = {name: value.detach() for name, value in _tensors(state).items()}
    return {name: value if isinstance(value, ShardedTensor) else value.cpu() for name, value in found.items()}, scalars


def pack_whole(state: State, keep: bool = True) -> dict[str, Tensor]:
    """The tensors of ``pack``, each whole, where ``keep``, else none; all ranks call it where they are sharded."""
    found: dict[str, Tensor] = {}
    for name, value in pack(state)[0].items():
        whole = full_tensor(value)
        if keep:
            found[name] = whole.cpu()
    return found


def _tensors(state: State) -> dict[str, Tensor]:
    tensors = {f"model.{k}": v for k, v in state.model.state_dict().items()}
    tensors |= {f"average.{k}": v for k, v in state.average.model.state_dict().items()}
    for name, average in state.others.items():
        tensors |= {f"{OTHERS}{name}/{k}": v for k, v in average.model.state_dict().items()}
    tensors |= {f"objective.{k}": v for k, v in _objective_tensors(state).items()}
    names = _own_numbers(state)
    for i, moments in state.optimizer.state_dict()["state"].items():
        tensors |= {f"optimiser.{names[i]}.{k}": torch.as_tensor(v) for k, v in moments.items()}
    return tensors


def make_room(state: State, shapes: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors for the values of a stored state, of which ``shapes`` are those; sharded as ``state`` is."""
    like = _likes(state)
    found = {name: torch.zeros_like(like(name, shape), dtype=shape.dtype) for name, shape in shapes.items()}
    return {name: torch.zeros_like(value, device="cpu") if value.is_meta else value for name, value in found.items()}


def unpack(state: State, tensors: dict[str, Tensor], scalars: dict[str, Any]) -> None:
    """Put back what ``pack`` took, whole or sharded; any error of torch or Python where that is of another run."""
    like = _likes(state)
    tensors = {name: shard_like(value, like(name, value)) for name, value in tensors.items()}
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
    places = {number: i for i, number in enumerate(_own_numbers(state))}
    moments = {places[i]: given for i, given in moments.items()}
    state.optimizer.load_state_dict(state.optimizer.state_dict() | {"state": moments})
    state.images, state.skipped = (_count(scalars[key]) for key in ("images", "skipped"))
    state.streak, state.draws = (_count(scalars.get(key, 0)) for key in ("streak", "draws"))  # older states have none
    state.micro = _count(scalars["micro"]) or None if "micro" in scalars else None


def _check(state: State, moments: dict[int, dict[str, Tensor]]) -> None:
    """The optimizer takes moments of any shape, and fails in the next step; ValueError before that."""
    shapes = [parameter.shape for parameter in _numbered(state)]
    for i, given in moments.items():
        if not 0 <= i < len(shapes) or any(value.ndim and value.shape != shapes[i] for value in given.values()):
            raise ValueError(f"moments of parameter {i} have another shape")
    if len({frozenset(given) for given in moments.values()}) > 1:
        raise ValueError("a moment of a parameter is missing")


def _optimized(state: State) -> list[nn.Parameter]:
    return [parameter for group in state.optimizer.param_groups for parameter in group["params"]]


def _numbered(state: State) -> list[nn.Parameter]:
    """What the optimizer trains, in the order of the numbers that a stored state has."""
    return state.sharding.parameters if state.sharding else _optimized(state)


def _own_numbers(state: State) -> list[int]:
    """The number of each parameter in a stored state, in the order of the optimizer."""
    numbers = {id(parameter): i for i, parameter in enumerate(_numbered(state))}
    return [numbers[id(parameter)] for parameter in _optimized(state)]


def _likes(state: State) -> Callable[[str, Tensor], Tensor]:
    """What a tensor of a stored state is to be like, by its name: one of the state, or the parameter of a moment."""
    own, parameters = _tensors(state), _numbered(state)

    def like(name: str, value: Tensor) -> Tensor:
        kind, _, rest = name.partition(".")
        number = rest.partition(".")[0]
        if kind == "optimiser" and number.isdecimal() and int(number) < len(parameters):
            parameter = parameters[int(number)].detach()
            return parameter if value.ndim and value.shape == parameter.shape else value
        return own.get(name, value)

    return like


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError("a count of images is no whole number")
    return value


def _objective_tensors(state: State) -> dict[str, Tensor]:
    return {k: v for k, v in state.objective.state_dict().items() if not k.startswith("teacher.")}


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
