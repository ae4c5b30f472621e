"""Which model is meant, and reading it."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from cmtool.bundled import bundled, named
from cmtool.commands.console import Console
from cmtool.core.denoiser import Denoiser
from cmtool.core.guidance import Guided
from cmtool.errors import UsageError, printable
from cmtool.files.header import Header
from cmtool.files.opening import format_of, open_any
from cmtool.files.runs import CHECKPOINT, latest_checkpoint

__all__ = ["checkpoint", "class_index", "open_model"]


def open_model(
    path: Path | None,
    device: torch.device,
    console: Console,
    format: Mapping[str, Any] | None = None,
    backbone: Mapping[str, Any] | None = None,
    kind: str = "consistency",
) -> tuple[Denoiser, Path]:
    """The model that was named, else that of the last finished run, else the bundled one of a ``kind``; and its path.

    ``format`` and ``backbone`` say what the file of another program leaves open.
    """
    found = checkpoint(path or latest_checkpoint() or bundled(kind))
    model = open_any(found, device, format, backbone)
    header = model.header
    seen = f", {header.images:,} images seen" if header.images else ""
    console.say(printable(f"model: {found} ({header.kind}, {header.method}{seen})"))
    return model, found


def checkpoint(path: Path) -> Path:
    """The checkpoint of a run directory, a bundled model by its name, or what was named itself."""
    path = named(path)
    inside = path / CHECKPOINT
    return inside if path.is_dir() and (inside.exists() or format_of(path) is None) else path


def class_index(header: Header, klass: int | str | None) -> int | None:
    """The label of a class given by number or by name; None when none was asked for."""
    if klass is None:
        return None
    if not header.conditional:
        raise UsageError("this model was trained without classes and takes no --class")
    if isinstance(klass, int) or re.fullmatch("[0-9]{1,18}", str(klass)):
        if int(klass) >= header.conditional:
            raise UsageError(f"there is no class {klass}", _numbers(header))
        return int(klass)
    if klass not in header.classes:
        hint = f"there are: {', '.join(header.classes)}" if header.classes else _numbers(header)
        raise UsageError(f"there is no class '{klass}'", hint)
    return header.classes.index(klass)


def _numbers(header: Header) -> str:
    """The classes by number, and by name where they have one."""
    names = f": {', '.join(header.classes)}" if header.classes else ""
    return f"classes are 0 to {header.conditional - 1}{names}"


def describe(model: Denoiser | Guided, path: Path) -> dict[str, Any]:
    """What a result says about the model that made it."""
    return {"path": str(path), "kind": model.header.kind, "sha256": model.header.sha256}
