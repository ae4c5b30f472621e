"""Which model is meant, and reading it."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from cmtool.bundled import NAMES, bundled, named
from cmtool.class_names import known_names, match_classes, some_names
from cmtool.commands.console import Console
from cmtool.core.denoiser import Denoiser
from cmtool.core.guidance import Guided
from cmtool.errors import MissingInput, UsageError, closest, printable
from cmtool.files.envelope import holds
from cmtool.files.header import KEY, Header
from cmtool.files.opening import format_of, open_any
from cmtool.files.runs import CHECKPOINT, latest_checkpoint

__all__ = ["checkpoint", "class_index", "class_name", "open_model"]

MOST = 40  # names of classes on a line


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
    track = "" if holds(found, KEY) else header.average.get("track", "")  # which of its networks a foreign file gave
    average = f", its average '{track}'" if track else ""
    seen = f", {header.images:,} images seen" if header.images else ""
    method = f", {header.method}" if header.method else ""
    console.say(printable(f"model: {found} ({header.kind}{method}{average}{seen})"))
    for remark in model.remarks:
        console.say(remark)
    return model, found


def checkpoint(path: Path) -> Path:
    """The checkpoint of a run directory, a bundled model by its name, or what was named itself.

    MissingInput for what is almost the name of a bundled one.
    """
    path = named(path)
    inside = path / CHECKPOINT
    if not path.exists():
        beside = [other.name for other in path.parent.iterdir()] if os.access(path.parent, os.R_OK | os.X_OK) else []
        near = closest(str(path), [*beside, *NAMES])
        if near in NAMES and near not in beside:
            raise MissingInput(f"there is no file {path}", f"did you mean {near}, which comes with cmtool?")
    return inside if path.is_dir() and (inside.exists() or format_of(path) is None) else path


def class_index(header: Header, klass: str | None) -> int | None:
    """The label of a class given by name or by number; None when none was asked for.

    A number is the class that is called so, where classes are called by numbers, and otherwise its place. UsageError
    for a class that there is not, and for a name that several have.
    """
    if klass is None:
        return None
    if not header.conditional:
        raise UsageError("this model was trained without classes and takes no --class")
    names = known_names(header.classes, header.conditional)
    places = [k for k, name in enumerate(names) if name == klass]
    if len(places) > 1:
        raise UsageError(
            f"several classes are called '{klass}'", f"say which by its number: {', '.join(map(str, places))}"
        )
    try:
        (found,) = places or match_classes([klass], names)
    except UsageError:
        found = None
    if found is None:
        what = klass if klass.isdecimal() else f"'{klass}'"
        raise UsageError(f"there is no class {what}", f"classes are {_told(header)}")
    return found


def class_name(header: Header, label: int) -> str:
    """``2 (cat)``: the number of a class, and its name where that says more."""
    names = known_names(header.classes, header.conditional)
    return str(label) if names[label] == str(label) else f"{label} ({names[label]})"


def _told(header: Header) -> str:
    """The names of all classes, as many as a line holds; or the numbers, where that is all they have."""
    if len(header.classes) == header.conditional and list(header.classes) != list(map(str, range(header.conditional))):
        return some_names(header.classes, MOST)
    return f"0 to {header.conditional - 1}"


def describe(model: Denoiser | Guided, path: Path) -> dict[str, Any]:
    """What a result says about the model that made it."""
    return {"path": str(path), "kind": model.header.kind, "sha256": model.header.sha256}
