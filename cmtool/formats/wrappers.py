"""Weights inside what trainers and wrappers put around them.

DataParallel begins every name with ``module.``, torch.compile with ``_orig_mod.``, Lightning with the name of an
attribute; trainers save dictionaries of dictionaries, often with an average beside the network. A format names a few of
its weights, and is given the dictionary in which they stand, without what was put before them: of several, the average.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from cmtool.errors import Hint, Setting, UsageError
from cmtool.files.safe_pickle.torch_files import find_pickle, state_dict

__all__ = ["FoundWeights", "JoinedNames", "ends_with", "mentions_weights", "strip_prefixes", "unwrap"]

DEEP, MANY = 4, 10_000  # dictionaries in one another, and all that is looked at
LONGEST, OFTEN = 64, 1000  # letters before a name, and how often a name is looked for
AVERAGE = re.compile(r"(^|[._-])(ema|shadow|averaged?|swa)", re.IGNORECASE)  # of a name of what trainers save
WRAPPERS = re.compile(r"^((module|_orig_mod|_fsdp_wrapped_module)\.)+")
SHADOW = "shadow_params"  # a list of averages without names, in the order of the parameters


@dataclass(frozen=True)
class FoundWeights:
    """Weights under their own names; ``place`` is where they stood, empty for those that nothing was put around."""

    tensors: dict[str, Tensor]
    place: str = ""

    @property
    def averaged(self) -> bool:
        return bool(AVERAGE.search(self.place))


class JoinedNames(dict[str, Tensor]):
    """Named tensors of several files, each of which was looked at by itself."""


def strip_prefixes(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without what DataParallel and torch.compile put before every name."""
    return {WRAPPERS.sub("", name): tensor for name, tensor in tensors.items()}


def ends_with(names: Iterable[str], name: str) -> bool:
    """Whether one of them is this name, alone or after a dot."""
    return any(other == name or other.endswith(f".{name}") for other in names)


def mentions_weights(path: Path, *names: str) -> bool:
    """Whether a file of ``torch.save`` mentions these weights, whatever was put before their names."""
    text = find_pickle(path)
    return bool(text) and all(_mentions(text, name.encode()) for name in names)


def _mentions(text: bytes, name: bytes) -> bool:
    """Whether a string ends with this name, alone or after a dot."""
    at = -1
    for _ in range(OFTEN):
        at = text.find(name, at + 1)
        if at < 0:
            return False
        before = range(LONGEST) if text[at - 1 : at] == b"." else range(1)
        if any(_begins(text, at - k, len(name) + k) for k in before):
            return True
    return False


def _begins(text: bytes, at: int, size: int) -> bool:
    """Whether a string of so many bytes begins there, after its length."""
    short = size < 256 and at >= 2 and text[at - 2 : at] == b"\x8c" + bytes([size])
    return short or (at >= 4 and text[at - 4 : at] == size.to_bytes(4, "little"))


def unwrap(
    path: Path, found: Any, names: tuple[str, ...], ema: bool = True, weights: str | None = None
) -> FoundWeights:
    """The network with these ``names`` among its weights.

    Of several, the average unless ``ema`` is false, or the one that stands at ``weights``. BadFile where there is none,
    or it is no network alone; UsageError where it must be said which.
    """
    every = list(_networks(found, names))
    every += _shadows(found, every[0].tensors) if every else []
    if not every:
        return FoundWeights(_name_tensors(path, found, found))  # which says what it is instead, or what it lacks
    if weights is not None:
        fits = [one for one in every if one.place == weights]
    else:
        fits = [one for one in every if one.averaged == ema] or [one for one in every if ema]
    if len(fits) == 1:
        return FoundWeights(_name_tensors(path, found, fits[0].tensors), fits[0].place)
    places = ", ".join(f"'{one.place}'" for one in every[:8])
    if weights is not None:
        raise UsageError(f"{path} has no weights at '{weights}'", f"there are: {places}")
    if not fits:
        raise UsageError(f"{path} holds an average and nothing else", Hint("leave {} out", Setting("format.ema")))
    raise UsageError(
        f"{path} holds {len(fits)} networks: {places}", Hint("say which: {}", Setting("format.weights", fits[0].place))
    )


def _name_tensors(path: Path, found: Any, tensors: Any) -> dict[str, Tensor]:
    return dict(tensors) if isinstance(found, JoinedNames) else state_dict(path, tensors)


def _networks(found: Any, names: tuple[str, ...]) -> Iterator[FoundWeights]:
    """Every dictionary, and every prefix in it, that has the names."""
    left: list[tuple[str, Any, int]] = [("", found, 0)]
    for _ in range(MANY):
        if not left:
            return
        place, value, depth = left.pop(0)
        if not isinstance(value, Mapping):
            continue
        keys = [key for key in value if isinstance(key, str)]
        for prefix in sorted({key.removesuffix(names[0]) for key in keys if key.endswith(names[0])}, key=len):
            if not prefix or prefix.endswith("."):
                yield from _network(place, prefix, value, keys, names)
        if depth < DEEP:
            inside = [(key, value[key]) for key in keys if isinstance(value[key], Mapping)]
            left += [(f"{place}.{key}" if place else key, part, depth + 1) for key, part in inside]


def _network(
    place: str, prefix: str, value: Mapping[str, Any], keys: list[str], names: tuple[str, ...]
) -> Iterator[FoundWeights]:
    """What stands behind a prefix, and the average that Lightning's ``LitEma`` keeps of it, without dots."""
    if not all(f"{prefix}{name}" in value for name in names):
        return
    chosen = [key for key in keys if key.startswith(prefix)] if prefix else list(value)
    yield FoundWeights(
        {key.removeprefix(prefix) if prefix else key: value[key] for key in chosen}, _join_prefix(place, prefix)
    )
    dotless = {key: f"model_ema.{key.removeprefix('model.').replace('.', '')}" for key in chosen if prefix}
    if prefix.startswith("model.") and dotless and all(other in value for other in dotless.values()):
        yield FoundWeights({key.removeprefix(prefix): value[other] for key, other in dotless.items()}, "model_ema")


def _join_prefix(place: str, prefix: str) -> str:
    """Where weights stand, as far as it tells one network from another, and as text that can be printed."""
    whole = ".".join(part for part in (place, WRAPPERS.sub("", prefix).removesuffix(".")) if part)
    return re.sub(r"[^\w.-]", "?", whole, flags=re.ASCII)[:LONGEST]


def _shadows(found: Any, named: Mapping[str, Any]) -> list[FoundWeights]:
    """Nameless averages under the names of the network that they fit."""
    shadows, top = [], found if isinstance(found, Mapping) else {}
    for key, value in top.items():
        inside = isinstance(value, Mapping)
        part = value.get(SHADOW) if inside else value if key == SHADOW else None
        if isinstance(part, list) and len(part) == len(named) and all(map(_alike, part, named.values())):
            shadows.append(FoundWeights(dict(zip(named, part, strict=True)), f"{key}.{SHADOW}" if inside else SHADOW))
    return shadows


def _alike(a: Any, b: Any) -> bool:
    return isinstance(a, Tensor) and isinstance(b, Tensor) and a.shape == b.shape
