"""Any model, whoever wrote its file: ours, or one of a registered format.

What the files of other programs leave open is said by the caller, or by a file beside them: of ``net.pt`` it is
``net.pt.yaml``, with the keys ``format`` and ``backbone``.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from cmtool.core.denoiser import Denoiser
from cmtool.errors import BadFile, UsageError, report_damage, unknown_name
from cmtool.files.checkpoint import complete_header, digest, load, save
from cmtool.files.container import holds, is_ours, names_in
from cmtool.files.file_kinds import refuse_other_kinds
from cmtool.files.header import KEY
from cmtool.files.model_format import Format, LoadedModel, WriteModel
from cmtool.options import registry
from cmtool.options.yaml_files import LARGEST, parse_yaml
from cmtool.text_files import read_text

__all__ = ["check_weights", "format_of", "open_any", "parent_record", "writer"]

STRANGE = "not a checkpoint of cmtool, and its tensors are those of no network that cmtool knows by them"
BY_TENSORS = (
    "known by their tensors are networks of OpenAI and score_sde; others need what was saved with them: "
    "of diffusers name the whole folder, of EDM the .pkl, of k-diffusion the file with its configuration"
)
Said = Mapping[str, Any]


def format_of(path: Path) -> str | None:
    """The name of the foreign format of a file or folder; None when it is ours, or nobody's."""
    if not (path.is_file() or path.is_dir()) or holds(path, KEY):
        return None
    return next((name for name in registry.names("formats") if _detects(_format(name), path)), None)


def _format(name: str) -> Format:
    return registry.get("formats", name)


def _detects(format: Format, path: Path) -> bool:
    try:
        return bool(format.detect(path))
    except Exception:  # what a format cannot look at is not of that format
        return False


def open_any(
    path: str | Path, device: str | torch.device = "cpu", format: Said | None = None, backbone: Said | None = None
) -> LoadedModel[Denoiser]:
    """The model of a file in eval mode, with its header.

    ``format`` holds options of the format (and its ``name``, where the content does not tell), ``backbone`` options of
    the network; both only of files of other programs, where they leave something open. MissingInput when there is no
    such file, BadFile when it is damaged, no model or not finite, UsageError when something must be said.
    """
    path = Path(path)
    beside = _beside(path)
    format, backbone = {**beside["format"], **(format or {})}, {**beside["backbone"], **(backbone or {})}
    name = format.get("name") or format_of(path)
    if name is None:
        loaded = _ours(path, device, format)
        check_weights(loaded.model, path)
        return loaded
    with report_damage(path, f"cannot be read as a model of '{name}'", "get it again from whoever made it"):
        loaded: LoadedModel[Denoiser] = registry.build("formats", {**format, "name": name}, path, backbone)
        model = loaded.model.eval().to(device)
    check_weights(model, path)
    header = replace(complete_header(loaded.header, model), sha256=loaded.header.sha256)
    return replace(loaded, model=model, header=header)


def check_weights(model: Denoiser, path: Path) -> None:
    """BadFile when one of its weights is NaN or infinite."""
    for name, weight in model.net.state_dict().items():
        if weight.is_floating_point() and not weight.isfinite().all():
            raise BadFile(
                f"{path} has weights that are not finite (NaN or infinite): '{name}' for one",
                "its training has diverged, or its precision is too small for it",
            )


def parent_record(path: Path) -> dict[str, str]:
    """How a header names a model that another one was made from."""
    name = format_of(path)
    sha256 = _format(name).digest(path) if name else digest(path)
    return {"path": str(path), "sha256": sha256}


def writer(name: str) -> WriteModel:
    """What writes a model in a format, as ``files.checkpoint.save`` writes ours; UsageError where nothing does."""
    known = {"cmtool": save} | {other: write for other in registry.names("formats") if (write := _format(other).write)}
    if name not in known:
        raise unknown_name("format to write", name, known)
    return known[name]


def _ours(path: Path, device: str | torch.device, format: Said) -> LoadedModel[Denoiser]:
    refuse_other_kinds(path)
    if path.is_file() and not holds(path, KEY):
        if names_in(path) and not is_ours(path):
            raise BadFile(f"{path} is a safetensors file, but {STRANGE}", BY_TENSORS)
        known = ", ".join(["cmtool", *registry.names("formats")])
        if path.suffix != ".safetensors":
            raise BadFile(f"{path} is no model in a format that cmtool reads, or is cut short", f"there are: {known}")
    if format:
        raise UsageError(f"{path} needs no 'format'", "it is for models of other programs; leave it out")
    return load(path, device)


def _beside(path: Path) -> dict[str, dict[str, Any]]:
    said: dict[str, dict[str, Any]] = {"format": {}, "backbone": {}}
    place = path.with_name(f"{path.name}.yaml")
    if not place.is_file():
        return said
    text = read_text(place, 4 * LARGEST, "it says what a model leaves open, as YAML")
    for key, entry in parse_yaml(text, str(place)).items():
        named = isinstance(entry.value, dict) and all(isinstance(name, str) for name in entry.value)
        if key not in said or not named:
            raise UsageError(
                f"'{key}' in {place}, line {entry.line}, is not what stands beside a model",
                "write 'format: {kind: consistency}' and 'backbone: {head_width: 64}'",
            )
        said[key] = entry.value
    return said
