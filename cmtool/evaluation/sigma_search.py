"""Coordinate search for the noise levels (sigmas) that minimize a measure; knows nothing of models."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle

__all__ = ["Trial", "golden_section", "measurements", "search"]

RATIO = (math.sqrt(5) - 1) / 2  # what a measurement leaves of a bracket: r^2 = 1 - r


@dataclass(frozen=True)
class Trial:
    """A measurement: the ``value`` at descending ``sigmas``."""

    sigmas: tuple[float, ...]
    value: float


def golden_section(f: Callable[[float], float], low: float, high: float, width: float) -> Iterator[tuple[float, float]]:
    """Every measurement (x, f(x)) on the way to a minimum of ``f`` between ``low`` and ``high``.

        x = high - r (high - low)  and  low + r (high - low),    r = (sqrt(5) - 1) / 2

    Two points divide the bracket. It loses what lies beyond the worse one, and the better one divides the rest in the
    same ratio, so that each further measurement leaves r of it. It ends when the last comparison leaves a bracket no
    wider than ``width``. A function with one valley is followed into it. Kiefer 1953, Proc. AMS 4, 502.
    """
    left, right = high - RATIO * (high - low), low + RATIO * (high - low)
    yield left, (at_left := f(left))
    yield right, (at_right := f(right))
    while RATIO * (high - low) > width:
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - RATIO * (high - low)
            yield left, (at_left := f(left))
        else:
            low, left, at_left = left, right, at_right
            right = low + RATIO * (high - low)
            yield right, (at_right := f(right))


def measurements(low: float, high: float, width: float) -> int:
    """How many ``golden_section`` makes: 1 + ln((high - low) / width) / ln(1 / r), rounded up, and 2 at least."""
    return 1 + max(1, math.ceil(math.log((high - low) / width) / -math.log(RATIO)))


def search(
    measure: Callable[[tuple[float, ...]], float],
    start: tuple[float, ...],
    ends: tuple[float, float],
    width: float,
    tolerance: float,
) -> Iterator[Trial]:
    """Every measurement of a search for the descending sigmas at which ``measure`` is least; the start is the first.

    The sigmas take turns: one moves between its neighbours by golden section in ln sigma, down to a bracket of
    ``width``, and the search goes on from the best measurement seen. ``ends`` = (highest, lowest) are neighbours of the
    first sigma and the last. It ends when no other sigma has lowered the value by more than its part ``tolerance``
    since each was moved. The answer is the best of the trials, however many of them were read.
    """
    best = Trial(start, measure(start))
    yield best
    idle = 0
    for i in cycle(range(len(start))):
        before = best.value
        for trial in _along(measure, best.sigmas, i, ends, width):
            yield trial
            best = min(best, trial, key=lambda each: each.value)
        idle = 1 if best.value < before * (1 - tolerance) else idle + 1  # a sigma that moved is at its best itself
        if idle == len(start):
            return


def _along(
    measure: Callable[[tuple[float, ...]], float],
    sigmas: tuple[float, ...],
    i: int,
    ends: tuple[float, float],
    width: float,
) -> Iterator[Trial]:
    """Move sigma ``i`` between its neighbours."""
    above, below = (ends[0], *sigmas)[i], (*sigmas, ends[1])[i + 1]

    def replace_sigma(u: float) -> tuple[float, ...]:
        return (*sigmas[:i], math.exp(u), *sigmas[i + 1 :])

    for u, value in golden_section(lambda u: measure(replace_sigma(u)), math.log(below), math.log(above), width):
        yield Trial(replace_sigma(u), value)
