"""Any model, whoever wrote its file: ours, or one of a registered format.

A format is a function ``(path, *, backbone, **options) -> Denoiser`` with a header, marked by ``detected`` with a
predicate that knows its files by their content. What such files leave open is said by the caller, or by a file beside
them: of ``net.pt`` it is ``net.pt.yaml``, with the keys ``format`` and ``backbone``.
"""

import codecs
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from cmtool import registry
from cmtool.core.denoiser import Denoiser
from cmtool.errors import BadFile, UsageError, parsing, unknown
from cmtool.files.checkpoint import described, digest, load, save
from cmtool.files.contents import refuse
from cmtool.files.envelope import holds
from cmtool.files.header import KEY, Header
from cmtool.yamlfile import parse

__all__ = ["detected", "format_of", "open_any", "parent", "writer"]

Said = Mapping[str, Any]
Write = Callable[[Path, Denoiser, Header, torch.dtype | None], Header]


def detected(
    by: Callable[[Path], bool], seal: Callable[[Path], str] = digest, write: Write | None = None
) -> Callable[[Any], Any]:
    """Mark the function that reads a format with the one that recognises it; it must not raise, nor run the file.

    A format of folders, or of several files, says what its ``seal`` is, a SHA-256 of all weights; one that can also be
    written says how.
    """

    def mark(read: Any) -> Any:
        read.detect, read.seal, read.write = by, seal, write
        return read

    return mark


def format_of(path: Path) -> str | None:
    """The name of the foreign format of a file or folder; None when it is ours, or nobody's."""
    if not (path.is_file() or path.is_dir()) or holds(path, KEY):
        return None
    return next((name for name in registry.names("formats") if _detects(registry.get("formats", name), path)), None)


def _detects(format: Any, path: Path) -> bool:
    try:
        return bool(format.detect(path))
    except Exception:  # what a format cannot look at is not of that format
        return False


def open_any(
    path: str | Path, device: str | torch.device = "cpu", format: Said | None = None, backbone: Said | None = None
) -> Denoiser:
    """The model of a file in eval mode, with its ``header``.

    ``format`` holds options of the format (and its ``name``, where the content does not tell), ``backbone`` options of
    the network; both only of files of other programs, where they leave something open. MissingInput when there is no
    such file, BadFile when it is damaged or no model, UsageError when something must be said.
    """
    path = Path(path)
    beside = _beside(path)
    format, backbone = {**beside["format"], **(format or {})}, {**beside["backbone"], **(backbone or {})}
    name = format.get("name") or format_of(path)
    if name is None:
        return _ours(path, device, format)
    with parsing(path, f"cannot be read as a model of '{name}'", "get it again from whoever made it"):
        model = registry.build("formats", {**format, "name": name}, path, backbone=backbone).eval().to(device)
    model.header = replace(described(model.header, model), sha256=model.header.sha256)
    return model


def parent(path: Path) -> dict[str, str]:
    """How a header names a model that another one was made from."""
    name = format_of(path)
    seal = registry.get("formats", name).seal if name else digest
    return {"path": str(path), "sha256": seal(path)}


def writer(name: str) -> Write:
    """What writes a model in a format, as ``files.checkpoint.save`` writes ours; UsageError where nothing does."""
    known = {other: getattr(registry.get("formats", other), "write", None) for other in registry.names("formats")}
    known = {"cmtool": save, **{other: write for other, write in known.items() if write}}
    if name not in known:
        raise unknown("format to write", name, known)
    return known[name]


def _ours(path: Path, device: str | torch.device, format: Said) -> Denoiser:
    refuse(path)
    if path.is_file() and path.suffix != ".safetensors" and not holds(path, KEY):
        known = ", ".join(["cmtool", *registry.names("formats")])
        raise BadFile(f"{path} is no model in a format that cmtool reads, or is cut short", f"there are: {known}")
    if format:
        raise UsageError(f"{path} needs no 'format'", "it is for models of other programs; leave it out")
    return load(path, device)


def _beside(path: Path) -> dict[str, dict[str, Any]]:
    said: dict[str, dict[str, Any]] = {"format": {}, "backbone": {}}
    place = path.with_name(f"{path.name}.yaml")
    if not place.is_file():
        return said
    for key, entry in parse(_text(place), str(place)).items():
        if key not in said or not isinstance(entry.value, dict):
            raise UsageError(
                f"'{key}' in {place}, line {entry.line}, is not what stands beside a model",
                "write 'format: {kind: consistency}' and 'backbone: {head_width: 64}'",
            )
        said[key] = entry.value
    return said


def _text(place: Path) -> str:
    """UTF-8 or UTF-16, with or without the mark that Windows puts before it; UsageError for anything else."""
    raw = place.read_bytes()
    try:
        return raw.decode("utf-16" if raw[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig")
    except UnicodeError:
        raise UsageError(f"{place} is not a text in UTF-8", "save it again as UTF-8") from None
