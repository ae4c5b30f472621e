"""What an option may hold: plugins with their options, seeds, and the checks of numbers and words.

A value that does not fit raises ``Expected`` with the words that complete "must be ...", so that a flag, a YAML key, an
environment variable and ``--set`` complain in the same sentence.
"""

import math
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, overload

__all__ = [
    "LARGEST_SEED",
    "Check",
    "Expected",
    "Seeds",
    "Spec",
    "above",
    "at_least",
    "at_least_or",
    "between",
    "descending",
    "matches",
    "part_of",
    "positive",
    "span",
]

LARGEST_SEED = 2**63 - 1
MOST_SEEDS, MOST_LEVELS, MOST_PARTS, MOST_AT_ONCE = 10**12, 100_000, 10_000, 10**6
FALLING = "positive numbers that fall from left to right"


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


def above(low: float) -> Check:
    """Every number (of a tuple) is greater than ``low``."""
    return Check(lambda value: all(x > low for x in _each(value)), f"above {low:g}")


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
    """A plugin and its options: ``{"name": "unet", "model_channels": 64}``."""

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
