"""What an option may hold: the types, how text becomes one of them, and the checks.

A value that does not fit raises ``Expected`` with the words that complete "must be ...", so that a flag, a YAML key, an
environment variable and ``--set`` complain in the same sentence.
"""

import math
import re
import types
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, Union, get_args, get_origin, overload

from cmtool.user_paths import expand_home

__all__ = [
    "LARGEST_SEED",
    "Check",
    "Expected",
    "Seeds",
    "Spec",
    "at_least",
    "at_least_or",
    "between",
    "coerce",
    "descending",
    "matches",
    "part_of",
    "path_text",
    "positive",
    "span",
]

LARGEST_SEED = 2**63 - 1
MOST_SEEDS, MOST_LEVELS, MOST_PARTS, MOST_AT_ONCE = 10**12, 100_000, 10_000, 10**6
FALLING = "positive numbers that fall from left to right"
_TRUE, _FALSE = {"true", "yes", "on", "1"}, {"false", "no", "off", "0"}


class Expected(ValueError):
    """The words that complete "must be ..."."""


@dataclass(frozen=True)
class Check:
    """A predicate with the words that complete "must be ...", and the largest number that the work can bear."""

    holds: Callable[[Any], bool]
    words: str
    most: float = math.inf

    def complaint(self, value: Any) -> str | None:
        """The words, where the value does not fit."""
        if not self.holds(value):
            return self.words
        return f"at most {self.most}" if self.most < math.inf and any(x > self.most for x in _each(value)) else None


def at_least(low: float, most: float = 10**12) -> Check:
    """Every number (of a tuple) is ``low`` or more, and none more than ``most``."""
    return Check(lambda value: all(x >= low for x in _each(value)), f"at least {low}", most)


def at_least_or(low: float, word: str) -> Check:
    """A number that is ``low`` or more, or the word."""
    return Check(
        lambda value: value == word or (not isinstance(value, str) and low <= value <= MOST_AT_ONCE),
        f"at least {low}, or {word}",
    )


def part_of() -> Check:
    """``K/N`` with K from 1 to N."""

    def holds(value: str) -> bool:
        found = re.fullmatch(r"([1-9]\d{0,8})/([1-9]\d{0,8})", value)
        return found is not None and int(found[1]) <= int(found[2]) <= MOST_PARTS

    return Check(holds, f"K/N with K from 1 to N and N at most {MOST_PARTS:,}, such as 3/8")


def positive() -> Check:
    """Every number (of a tuple) is greater than 0."""
    return Check(lambda value: all(x > 0 for x in _each(value)), "greater than 0")


def between(low: float, high: float) -> Check:
    """Every number (of a tuple) lies in [low, high]."""
    return Check(lambda value: all(low <= x <= high for x in _each(value)), f"from {low} to {high}")


def descending() -> Check:
    """The numbers of a tuple fall from left to right and stay above 0."""
    return Check(lambda value: bool(value) and value[-1] > 0 and all(a > b for a, b in pairwise(value)), FALLING)


def ascending_integers() -> Check:
    """The whole numbers of a tuple rise from 0 and are two or more."""

    def rises(value: Any) -> bool:
        return len(value) > 1 and value[0] == 0 and all(a < b for a, b in pairwise(value)) and value[-1] < MOST_LEVELS

    return Check(rises, f"two or more rising whole numbers below {MOST_LEVELS:,}, the first of them 0, such as 0,22,39")


def span() -> Check:
    """Two numbers from 0 on, the lower first."""
    return Check(lambda value: len(value) == 2 and 0 <= value[0] < value[1], "two numbers from 0 on, the lower first")


def matches(pattern: str, words: str) -> Check:
    """The whole text matches the regular expression."""
    return Check(lambda value: re.fullmatch(pattern, value) is not None, words)


def _each(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


class Spec(dict[str, Any]):
    """A plugin and its options: ``{"name": "unet", "width": 64}``."""

    @property
    def name(self) -> str:
        """The plugin's name, or an empty string when only options were given."""
        return self.get("name", "")


class Seeds(Sequence[int]):
    """The seeds that ``"0-63"`` or ``"1,2,5-10"`` stands for, in that order, without a list of them."""

    def __init__(self, ranges: Sequence[range]):
        self.ranges = tuple(ranges)
        self._ends = tuple(accumulate(map(len, self.ranges)))

    @classmethod
    def parse(cls, text: str) -> "Seeds":
        """Raises Expected for anything but increasing ranges of whole numbers that do not overlap."""
        found = [re.fullmatch(r"\s*(\d{1,40})\s*(?:-\s*(\d{1,40})\s*)?", part) for part in text.split(",")]
        if any(match is None for match in found):
            raise Expected("seeds such as 0-63 or 1,2,5-10")
        ranges = [range(int(m[1]), int(m[2] or m[1]) + 1) for m in found if m]
        if any(r.stop <= r.start or r.stop - 1 > LARGEST_SEED for r in ranges):
            raise Expected(f"seeds that grow from left to right, at most {LARGEST_SEED}")
        if sum(r.stop - r.start for r in ranges) > MOST_SEEDS:
            raise Expected(f"at most {MOST_SEEDS:,} seeds")
        if any(a[-1] >= b[0] for a, b in pairwise(sorted(ranges, key=lambda r: r[0]))):
            raise Expected("seeds of which none comes twice")
        return cls(ranges)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> list[int]: ...
    def __getitem__(self, index: int | slice) -> int | list[int]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        i = range(len(self))[index]
        which = bisect_right(self._ends, i)
        return self.ranges[which][i - self._ends[which]]

    def __iter__(self) -> Iterator[int]:
        for r in self.ranges:
            yield from r

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Seeds) and self.ranges == other.ranges

    def __hash__(self) -> int:
        return hash(self.ranges)

    def __str__(self) -> str:
        return ",".join(str(r[0]) if len(r) == 1 else f"{r[0]}-{r[-1]}" for r in self.ranges)

    def __repr__(self) -> str:
        return f"Seeds('{self}')"


def coerce(kind: Any, value: Any) -> Any:
    """``value``, which is text or came out of a YAML file, as the declared type ``kind``; raises Expected."""
    if get_origin(kind) in (Union, types.UnionType):
        return _coerce_union(get_args(kind), value)
    if get_origin(kind) is tuple:
        items = value.strip("[]() ").split(",") if isinstance(value, str) else value
        items = items if isinstance(items, list | tuple) else [items]
        return tuple(coerce(get_args(kind)[0], item) for item in items)
    return _CASTS[kind](value)


def _coerce_union(kinds: tuple[Any, ...], value: Any) -> Any:
    if types.NoneType in kinds and (value is None or value in ("none", "null")):
        return None
    *first, last = [kind for kind in kinds if kind is not types.NoneType]
    for kind in first:
        try:
            return coerce(kind, value)
        except Expected:
            continue
    return coerce(last, value)


def _bool(value: Any) -> bool:
    word = str(value).lower()
    if word not in _TRUE | _FALSE:
        raise Expected("true or false")
    return word in _TRUE


def _float(value: Any) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise Expected("a number")
    return number


def _int(value: Any) -> int:
    number = _whole(value)
    if abs(number) > LARGEST_SEED:
        raise Expected(f"a whole number of at most {LARGEST_SEED}")
    return number


def _whole(value: Any) -> int:
    try:
        if isinstance(value, str):
            return int(value)
    except ValueError:
        pass
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    try:
        number = _float(value)  # 1e6 is a whole number too
    except Expected:
        number = 0.5
    if number != int(number):
        raise Expected("a whole number")
    return int(number)


def _str(value: Any) -> str:
    if not isinstance(value, str | int | float | Path) or isinstance(value, bool):
        raise Expected("text")
    return str(value)


def path_text(value: Any) -> str:
    """The text of a path with ``~`` written out, and with the ``/`` at its end; raises Expected."""
    text = _str(value)
    if not text or "\0" in text:
        raise Expected("a path")
    return expand_home(text)


def _path(value: Any) -> Path:
    return Path(path_text(value))


def _spec(value: Any) -> Spec:
    if isinstance(value, str) and value:
        return Spec(name=value)
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise Expected("a name or a mapping of options")
    if not isinstance(value.get("name") or "", str):
        raise Expected("a name or a mapping of options, with a word for its name")
    if not _bound(value):
        raise Expected("a name or a mapping of options, with numbers below 2^63")
    return Spec({key.replace("-", "_"): item for key, item in value.items()})


def _bound(value: Any) -> bool:
    """Whether no whole number inside is longer than can be written out."""
    if isinstance(value, Mapping):
        return all(_bound(item) for item in value.values())
    if isinstance(value, list | tuple):
        return all(map(_bound, value))
    return not isinstance(value, int) or abs(value) < 1 << 63


def _seeds(value: Any) -> Seeds:
    if isinstance(value, Seeds):
        return value
    return Seeds.parse(",".join(map(str, value)) if isinstance(value, list | tuple) else str(value))


_CASTS: dict[Any, Callable[[Any], Any]] = {
    bool: _bool,
    int: _int,
    float: _float,
    str: _str,
    Path: _path,
    Spec: _spec,
    Seeds: _seeds,
}
