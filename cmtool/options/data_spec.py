"""What users write to name a data set."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cmtool.data_paths import has_suffix, is_list
from cmtool.errors import UsageError
from cmtool.options import registry
from cmtool.user_paths import expand_home

__all__ = ["SLICE", "data_spec"]

SLICE = re.compile(r"-?\d{0,18}:-?\d{0,18}(:(-?[1-9]\d{0,17})?)?")
DRIVE = re.compile(r"[A-Za-z]:[\\/]")


def data_spec(text: str) -> Mapping[str, Any]:
    """``NAME``, ``NAME:SOURCE`` or a path, with or without a slice: ``name``, ``source`` and ``slice``.

    ``digits[0::2]`` is every second digit, ``folder:pictures`` and ``./pictures`` are the folder's images, and
    ``./photos[1]`` is a folder where there is one of that name. A path is that of a folder, an archive, or several,
    ``data/{000..099}.tar``. None stands where the text says nothing. Raises
    UsageError when the slice is none.
    """
    whole = text.removeprefix("folder:")
    text, part = (text, None) if _is_there(whole) else _cut(text)
    if _is_path(text) or (_is_there(text) and text not in registry.names("datasets")):
        return {"name": "folder", "source": text, "slice": part}
    name, _, source = text.partition(":")
    return {"name": name, "source": source or None, "slice": part}


def _is_path(text: str) -> bool:
    return (
        text.startswith((".", "/", "~", "\\"))
        or bool(DRIVE.match(text))
        or ((has_suffix(text) or is_list(text)) and ":" not in text)
    )


def _is_there(text: str) -> bool:
    try:
        return Path(expand_home(text)).exists()
    except (OSError, ValueError):  # too long, or with a NUL
        return False


def _cut(text: str) -> tuple[str, str | None]:
    match = re.fullmatch(r"(.+)\[([^\[\]]*)\]", text)
    if not match:
        return text, None
    if not SLICE.fullmatch(match[2]):
        if _is_path(text):  # it may be the name of a folder; that there is none is said where it is opened
            return text, None
        raise UsageError(f"[{match[2]}] is no part of a data set", "write digits[0:100] or digits[0::2]")
    return match[1], match[2]
