"""What users write to name a data set."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cmtool import registry
from cmtool.errors import UsageError

__all__ = ["data_spec"]


def data_spec(text: str) -> Mapping[str, Any]:
    """``NAME``, ``NAME:SOURCE`` or a folder, with or without a slice: the keys ``name``, ``source`` and ``slice``.

    ``digits[0::2]`` is every second digit, ``folder:pictures`` and ``./pictures`` are the folder's images; None stands
    where the text says nothing. Raises UsageError when the slice is none.
    """
    text, part = _cut(text)
    if text.startswith((".", "/", "~")) or (Path(text).is_dir() and text not in registry.names("datasets")):
        return {"name": "folder", "source": text, "slice": part}
    name, _, source = text.partition(":")
    return {"name": name, "source": source or None, "slice": part}


def _cut(text: str) -> tuple[str, str | None]:
    match = re.fullmatch(r"(.+)\[([^\[\]]*)\]", text)
    if not match:
        return text, None
    if not re.fullmatch(r"-?\d*:-?\d*(:(-?[1-9]\d*)?)?", match[2]):
        raise UsageError(f"[{match[2]}] is no part of a data set", "write digits[0:100] or digits[0::2]")
    return match[1], match[2]
