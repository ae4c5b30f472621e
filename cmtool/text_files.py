"""Small text files that a user names, read within bounds; and JSON by its standard (RFC 8259)."""

import codecs
import json
import math
from pathlib import Path
from typing import Any

from cmtool.errors import Advice, MissingInput, UsageError, check_regular

__all__ = ["dump_json", "read_text"]


def read_text(path: Path, most: int, hint: Advice) -> str:
    """The text of a file of at most ``most`` bytes: UTF-8, or what Windows writes, with or without its mark.

    MissingInput when there is no such file, UsageError when it is larger or no text; ``hint`` says what is wanted.
    """
    check_regular(path)
    try:
        with path.open("rb") as file:
            raw = file.read(most + 1)
        if len(raw) > most:
            raise UsageError(f"{path} is larger than {most:,} bytes", hint)
        wide = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        return raw.decode("utf-16" if wide else "utf-8-sig").replace("\r\n", "\n")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MissingInput(f"there is no file {path}", hint) from error
    except (UnicodeDecodeError, IsADirectoryError) as error:
        raise UsageError(f"{path} is not a text file", hint) from error
    except (OSError, ValueError) as error:
        raise MissingInput(f"cannot read {path}: {getattr(error, 'strerror', None) or error}", hint) from error


def dump_json(value: Any, **about: Any) -> str:
    """The JSON text of a value, with null for every number that is not finite; ``about`` as of ``json.dumps``."""
    return json.dumps(_finite(value), allow_nan=False, **about)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value
