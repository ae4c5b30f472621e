"""Describing a foreign pickle in a process of its own, with limits on its memory and time.

The reader there has no way to run anything (``pickles``); that it is another process bounds what a file made to exhaust
or to crash a reader can do.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from cmtool.errors import BadFile

__all__ = ["accepted", "described", "outlined"]

PATIENCE = 600  # seconds that a slow disk may take; the process bounds its own work
ROOT = str(Path(__file__).resolve().parents[2])
PROGRAM = f"import sys; sys.path.append({ROOT!r}); from cmtool.formats.sandbox import main; main()"


def described(path: Path) -> dict[str, Any]:
    """``persistent.describe`` of a file; BadFile with its reason when it is refused, or the reader did not survive."""
    return accepted(path, _told("persistent", path))


def outlined(path: Path) -> Any:
    """``outline.describe`` of a file; BadFile as above."""
    return accepted(path, _told("outline", path))


def _told(module: str, path: Path) -> bytes:
    command = [sys.executable, "-I", "-S", "-c", PROGRAM, module, str(path.resolve())]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        return b""
    return done.stdout if done.returncode == 0 else b""


def accepted(path: Path, text: str | bytes) -> Any:
    """What the process told, unless that is a refusal or nothing: BadFile."""
    told = json.loads(text or '{"refused": "that takes more time or memory than a network needs"}')
    if isinstance(told, dict) and "refused" in told:
        raise BadFile(f"{path} cannot be read: {told['refused']}", "get it again from whoever made it")
    return told
