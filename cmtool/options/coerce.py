"""How a value of a flag, a variable or a YAML file becomes the type that its option has."""

import math
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Union, get_args, get_origin

from cmtool.options.types import LARGEST_SEED, Expected, Seeds, Spec
from cmtool.user_paths import expand_home

__all__ = ["coerce", "path_text", "type_words"]

_TRUE, _FALSE = {"true", "yes", "on", "1"}, {"false", "no", "off", "0"}


def coerce(kind: Any, value: Any) -> Any:
    """``value``, which is text or came out of a YAML file, as the declared type ``kind``; raises Expected."""
    if get_origin(kind) in (Union, types.UnionType):
        return _coerce_union(get_args(kind), value)
    if get_origin(kind) is tuple:
        items = value.strip("[]() ").split(",") if isinstance(value, str) else value
        items = items if isinstance(items, list | tuple) else [items]
        return tuple(coerce(get_args(kind)[0], item) for item in items)
    return _CASTS[kind](value)


def type_words(kind: Any) -> str:
    """What users may write for a type, in a word or two: ``number``, ``true|false``, ``numbers``; "" for others."""
    if get_origin(kind) in (Union, types.UnionType):
        words = list(map(type_words, get_args(kind)))
        return "|".join(words) if all(words) else ""
    if get_origin(kind) is tuple:
        return f"{type_words(get_args(kind)[0])}s"
    return _WORDS.get(kind, "")


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
    if not _fits_digits(value):
        raise Expected("a name or a mapping of options, with numbers below 2^63")
    return Spec({key.replace("-", "_"): item for key, item in value.items()})


def _fits_digits(value: Any) -> bool:
    """Whether no whole number inside is longer than can be written out."""
    if isinstance(value, Mapping):
        return all(_fits_digits(item) for item in value.values())
    if isinstance(value, list | tuple):
        return all(map(_fits_digits, value))
    return not isinstance(value, int) or abs(value) < 1 << 63


def _seeds(value: Any) -> Seeds:
    if isinstance(value, Seeds):
        return value
    return Seeds.parse(",".join(map(str, value)) if isinstance(value, list | tuple) else str(value))


_WORDS: dict[Any, str] = {
    bool: "true|false",
    int: "integer",
    float: "number",
    str: "text",
    Path: "path",
    Spec: "name",
    Seeds: "seeds",
    types.NoneType: "none",
}
_CASTS: dict[Any, Callable[[Any], Any]] = {
    bool: _bool,
    int: _int,
    float: _float,
    str: _str,
    Path: _path,
    Spec: _spec,
    Seeds: _seeds,
}
