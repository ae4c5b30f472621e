"""The program of the process that reads a foreign pickle, and its limits. Standard library only (``apart``)."""

import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import Any, BinaryIO

from cmtool.files.safe_pickle.unpickler import Refused

__all__ = ["MEMORY", "main", "report_to_parent"]

MEMORY = 1 << 30  # bytes that the process may have beside the file itself
SECONDS, SPEED = 8, 1 << 27  # of processor time, and the bytes of the file that allow one second more


def main() -> None:
    """``MODULE PATH``: what ``describe`` of the module tells of the file, on the standard output, within limits."""
    module, path = sys.argv[1:]
    limit(os.path.getsize(path))
    sys.stdout.write(report_to_parent(path, import_module(f"cmtool.files.safe_pickle.{module}").describe))


def report_to_parent(path: str | os.PathLike[str], describe: Callable[[BinaryIO], Any]) -> str:
    """The description as JSON, or ``{"refused": why}``."""
    try:
        with open(path, "rb") as file:
            return json.dumps(describe(file))
    except Refused as refusal:
        reason = str(refusal)
    except MemoryError:
        reason = f"reading it takes more than {MEMORY >> 20} MiB of memory"
    except Exception as error:  # there is no end to what a broken stream can make a reader raise
        reason = f"it is damaged or cut short ({type(error).__name__})"
    return json.dumps({"refused": reason})


def limit(size: int) -> None:
    """Bound the memory and the time of this process, where the system can; a core dump would hold the file."""
    with suppress(ImportError, ValueError, OSError):
        import resource

        for what, most in (
            (resource.RLIMIT_CORE, 0),
            (resource.RLIMIT_FSIZE, 0),
            (resource.RLIMIT_AS, size + MEMORY),
            (resource.RLIMIT_CPU, SECONDS + size // SPEED),
        ):
            resource.setrlimit(what, (most, most))
