"""Which of the options that an error is about were not typed behind their flag, and where they came from instead."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

from cmtool.declarations import Declaration, Options, declarations
from cmtool.errors import BadFile, CmtoolError, MissingInput, UsageError
from cmtool.home import expanded
from cmtool.sources import FLAGS, Given

__all__ = ["blaming"]


@contextmanager
def blaming(cls: type[Options], given: Mapping[str, Sequence[Given]]) -> Iterator[None]:
    """An error of the user that leaves the block has the sources of the options that it is about in its hint.

    Those are options whose flag it speaks of, or whose value its message names, where the environment, a file or
    ``--set`` has set them: nobody finds a wrong variable by a hint to leave out a flag.
    """
    try:
        yield
    except (UsageError, MissingInput, BadFile) as error:
        last = ((d, given[key][-1]) for key, d in declarations(cls).items() if given[key])
        told = [f"{d.long} was set by {item.place.rstrip(',')}" for d, item in last if _is_about(error, d, item)]
        error.hint = "; ".join([*([error.hint] if error.hint else []), *told]) or None
        raise


def _is_about(error: CmtoolError, d: Declaration, item: Given) -> bool:
    if item.source == FLAGS or item.place in error.message:
        return False
    if _says(f"{error.message} {error.hint}", d.long):
        return True
    is_path = d.path or Path in (d.kind, *get_args(d.kind))
    return any(_says(error.message, word if is_path else f"'{word}'") for word in _words(item.value))


def _words(value: Any) -> list[str]:
    """How a message may call a value: by its text, or by the name and the place in a mapping."""
    texts = [value.get("name"), value.get("source")] if isinstance(value, Mapping) else [value]
    return [word for text in texts if isinstance(text, str) and text for word in {text, expanded(text)}]


def _says(text: str, word: str) -> bool:
    """Whether the word stands there as a whole."""
    return re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", text) is not None
