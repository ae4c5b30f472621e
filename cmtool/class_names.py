"""Which class of one list is which of another: by name where both sides have names, otherwise by number."""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import overload

from cmtool.errors import UsageError, encodable

__all__ = ["are_numbers", "known_names", "match_classes", "some_names"]

NUMBER = re.compile(r"(?:(?:class|label)[ _-]?)?([0-9]{1,18})", re.IGNORECASE)


@overload
def match_classes(ours: Sequence[str], theirs: Sequence[str], our: str = ..., their: str = ...) -> list[int]: ...
@overload
def match_classes(
    ours: Sequence[str], theirs: Sequence[str], our: str = ..., their: str = ..., *, partial: bool
) -> list[int | None]: ...
def match_classes(
    ours: Sequence[str],
    theirs: Sequence[str],
    our: str = "the data",
    their: str = "the model",
    *,
    partial: bool = False,
) -> Sequence[int | None]:
    """For each class of ``ours`` the index in ``theirs`` of the same class.

    Equal names match in any order; without an equal one, names that differ only in case, spaces or the way that Unicode
    writes them. Where one side has no names but numbers (``3``, ``00003``, ``class 3``) the number counts: two numbers
    match by value, a number and a name by the place of the name, and names match nameless classes by their order if
    they are as many. UsageError naming the classes that ``their`` side lacks; with ``partial`` these are None instead,
    and only lists that have nothing in common are refused. ``our`` and ``their`` are what messages call the sides.
    """
    if tuple(ours) == tuple(theirs):
        return list(range(len(ours)))
    found = _match(ours, theirs, our, their)
    missing = [name for name, index in zip(ours, found, strict=True) if index is None]
    if missing and not (partial and len(missing) < len(ours)):
        raise UsageError(
            f"{our} and {their} have different classes: {their} knows no {some_names(missing)}",
            f"{their} knows {some_names(theirs, 12)}; classes are matched by name" if theirs else None,
        )
    taken = Counter(index for index in found if index is not None)
    twice = [name for name, index in zip(ours, found, strict=True) if index is not None and taken[index] > 1]
    if twice:
        raise UsageError(f"{some_names(twice)} of {our} are one class of {their}", "give each class a name of its own")
    return found


def known_names(names: Sequence[str], count: int) -> tuple[str, ...]:
    """The ``names`` of ``count`` classes; their numbers where there are no names, or not as many."""
    return tuple(names) if len(names) == count else tuple(str(k) for k in range(count))


def are_numbers(names: Sequence[str]) -> bool:
    """Whether every name is a number, so that the classes have no names."""
    return all(_number(name) is not None for name in names)


def some_names(names: Sequence[str], most: int = 6) -> str:
    """``cat, dog, ...``, with what cannot be shown written out."""
    shown = [name if name.isprintable() else ascii(name)[1:-1] for name in names[:most]]
    return ", ".join([*shown, *(["..."] if len(names) > most else [])])


def _match(ours: Sequence[str], theirs: Sequence[str], our: str, their: str) -> list[int | None]:
    if are_numbers(ours) and are_numbers(theirs):
        return _find([str(_number(name)) for name in ours], [str(_number(name)) for name in theirs])
    if are_numbers(ours):
        numbers = [_number(name) for name in ours]
        return [number if number is not None and number < len(theirs) else None for number in numbers]
    if are_numbers(theirs):
        if len(ours) != len(theirs):
            raise UsageError(
                f"{our} have {len(ours)} classes and {their} {len(theirs)} without names: which is which?",
                "name the classes of the data by their numbers: 0, 1, 2, ...",
            )
        return list(range(len(ours)))
    exact = _find(ours, theirs)
    alike = _find([_plain(name) for name in ours], [_plain(name) for name in theirs])
    return [second if first is None else first for first, second in zip(exact, alike, strict=True)]


def _find(ours: Sequence[str], theirs: Sequence[str]) -> list[int | None]:
    """Where each name stands; one that stands there twice is not found, since nothing says which is meant."""
    count, places = Counter(theirs), {name: k for k, name in enumerate(theirs)}
    return [places[name] if count[name] == 1 else None for name in ours]


def _number(name: str) -> int | None:
    match = NUMBER.fullmatch(name.strip())
    return int(match[1]) if match else None


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", unicodedata.normalize("NFKC", encodable(name))).strip().casefold()
