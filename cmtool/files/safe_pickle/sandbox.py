"""The process in which a foreign pickle is read, and what asks it: limits on memory and time, and one answer in JSON.

The reader has no way to run anything (``unpickler``). That it is another process bounds what a file made to exhaust or
to crash a reader can do. Both sides know only the standard library, so that the process starts at once.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from cmtool.errors import BadFile
from cmtool.files.safe_pickle import outline, persistence
from cmtool.files.safe_pickle.unpickler import Refusal

__all__ = ["MEMORY", "describe_network", "describe_objects", "describe_to_json", "main", "parse_answer"]

Describe = Callable[[BinaryIO], Any]

MEMORY = 1 << 30  # bytes that the process may have beside the file itself
SECONDS, SPEED = 8, 1 << 27  # of processor time, and the bytes of the file that allow one second more
PATIENCE = 600  # seconds that a slow disk may take; the process bounds its own work
READERS: dict[str, Describe] = {"outline": outline.describe, "persistence": persistence.describe}
ROOT = str(Path(__file__).resolve().parents[3])
PROGRAM = f"import sys; sys.path.append({ROOT!r}); from cmtool.files.safe_pickle.sandbox import main; main()"


def describe_network(path: Path) -> dict[str, Any]:
    """``persistence.describe`` of a file; BadFile with its reason when it is refused, or the reader did not survive."""
    return parse_answer(path, _ask("persistence", path))


def describe_objects(path: Path, title: object = None) -> Any:
    """``outline.describe`` of a file, which messages call ``title``; BadFile as above."""
    return parse_answer(title or path, _ask("outline", path))


def _ask(reader: str, path: Path) -> bytes:
    """What the process answers; nothing where it did not survive."""
    command = [sys.executable, "-I", "-S", "-c", PROGRAM, reader, str(path.resolve())]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        return b""
    return done.stdout if done.returncode == 0 else b""


def parse_answer(path: object, text: str | bytes) -> Any:
    """The description that the process gave, unless it is a refusal or nothing: BadFile."""
    answer = json.loads(text or '{"refused": "that takes more time or memory than a network needs"}')
    if isinstance(answer, dict) and "refused" in answer:
        raise BadFile(f"{path} cannot be read: {answer['refused']}", "get it again from whoever made it")
    return answer


def main() -> None:
    """The program of the process, ``READER PATH``: the description goes to standard output."""
    reader, path = sys.argv[1:]
    _limit(os.path.getsize(path))
    sys.stdout.write(describe_to_json(path, READERS[reader]))


def describe_to_json(path: str | os.PathLike[str], describe: Describe) -> str:
    """The description as JSON, or ``{"refused": why}``."""
    try:
        with open(path, "rb") as file:
            return json.dumps(describe(file))
    except Refusal as refusal:
        reason = str(refusal)
    except MemoryError:
        reason = f"reading it takes more than {MEMORY >> 20} MiB of memory"
    except Exception as error:  # there is no end to what a broken stream can make a reader raise
        reason = f"it is damaged or cut short ({type(error).__name__})"
    return json.dumps({"refused": reason})


def _limit(size: int) -> None:
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
