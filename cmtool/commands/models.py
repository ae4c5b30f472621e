"""Which model is meant, and reading it."""

from pathlib import Path
from typing import Any

import torch

from cmtool.commands.console import Console
from cmtool.core.denoiser import Denoiser
from cmtool.core.guidance import Guided
from cmtool.errors import MissingInput, UsageError
from cmtool.files.checkpoint import load
from cmtool.files.header import Header
from cmtool.files.runs import CHECKPOINT, latest_checkpoint

__all__ = ["checkpoint", "class_index", "open_model"]


def open_model(path: Path | None, device: torch.device, console: Console) -> tuple[Denoiser, Path]:
    """The checkpoint that was named, else the user's own default, else that of the last finished run; and its path."""
    found = path or latest_checkpoint()
    if found is None:
        raise MissingInput("there is no model here", "train one with 'cmtool train-ct', or name one with --model FILE")
    found = checkpoint(found)
    model = load(found, device)
    header = model.header
    console.say(f"model: {found} ({header.kind}, {header.method}, {header.images:,} images seen)")
    return model, found


def checkpoint(path: Path) -> Path:
    """The checkpoint of a run directory, or the file itself."""
    return path / CHECKPOINT if path.is_dir() else path


def class_index(header: Header, klass: int | str | None) -> int | None:
    """The label of a class given by number or by name; None when none was asked for."""
    if klass is None:
        return None
    if not header.conditional:
        raise UsageError("this model was trained without classes and takes no --class")
    if isinstance(klass, int) or str(klass).isdigit():
        if int(klass) >= header.conditional:
            raise UsageError(
                f"there is no class {klass}", f"classes are 0 to {header.conditional - 1}: {_names(header)}"
            )
        return int(klass)
    if klass not in header.classes:
        raise UsageError(f"there is no class '{klass}'", f"there are: {_names(header)}")
    return header.classes.index(klass)


def _names(header: Header) -> str:
    return ", ".join(header.classes)


def describe(model: Denoiser | Guided, path: Path) -> dict[str, Any]:
    """What a result says about the model that made it."""
    return {"path": str(path), "kind": model.header.kind, "sha256": model.header.sha256}
