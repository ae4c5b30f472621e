"""A foreign pickle described in a process of its own, with limits on memory and time, and its tensors read.

The reader there has no way to run anything (``pickles``); that it is another process bounds what a file made to exhaust
or to crash a reader can do.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cmtool.errors import BadFile

__all__ = ["TYPES", "describe", "outlined", "parse_description", "read_tensors"]


PATIENCE = 600  # seconds that a slow disk may take; the process bounds its own work
ROOT = str(Path(__file__).resolve().parents[3])
PROGRAM = f"import sys; sys.path.append({ROOT!r}); from cmtool.files.safe_pickle.sandbox_process import main; main()"


def describe(path: Path) -> dict[str, Any]:
    """``persistent.describe`` of a file; BadFile with its reason when it is refused, or the reader did not survive."""
    return parse_description(path, _told("persistence", path))


def outlined(path: Path) -> Any:
    """``outline.describe`` of a file; BadFile as above."""
    return parse_description(path, _told("outline", path))


def _told(module: str, path: Path) -> bytes:
    command = [sys.executable, "-I", "-S", "-c", PROGRAM, module, str(path.resolve())]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        return b""
    return done.stdout if done.returncode == 0 else b""


def parse_description(path: Path, text: str | bytes) -> Any:
    """What the process told, unless that is a refusal or nothing: BadFile."""
    told = json.loads(text or '{"refused": "that takes more time or memory than a network needs"}')
    if isinstance(told, dict) and "refused" in told:
        raise BadFile(f"{path} cannot be read: {told['refused']}", "get it again from whoever made it")
    return told


TYPES = {
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
}


def read_tensors(path: Path, table: Mapping[str, list[Any]]) -> dict[str, Tensor]:
    """The tensors of a table ``{name: [dtype, start, count, offset, shape, strides]}``, in memory of their own."""
    found = {}
    with path.open("rb") as file:
        for name, (kind, start, count, offset, shape, strides) in table.items():
            values = torch.empty(count, dtype=TYPES[kind])
            file.seek(start)
            if count and file.readinto(values.view(torch.uint8).numpy().data) != values.nbytes:
                raise BadFile(f"{path} changed while it was read", "try again")
            found[name] = values.as_strided(shape, strides, offset).contiguous()
    return found
