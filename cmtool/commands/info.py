"""``info``: installed plugins, presets, or a summary of a checkpoint from its header; never needs torch."""

import shlex
from collections.abc import Iterator, Mapping
from itertools import starmap
from pathlib import Path
from typing import Any

from cmtool import presets
from cmtool.bundled import NAMES, find_bundled
from cmtool.commands.console import Console
from cmtool.errors import MissingInput, closest, printable
from cmtool.files.header import Header
from cmtool.options import registry
from cmtool.options.fields import option_fields
from cmtool.options.sources import preset_commands
from cmtool.options.yaml_files import parse_yaml, write_yaml
from cmtool.settings import DistillOptions, InfoOptions, TrainCtOptions, TrainScoreOptions

__all__ = ["advice", "missing_for_preset", "preset_facts", "preset_table", "run", "summarize"]


INSIDE = "model.safetensors"  # the checkpoint of a run


def run(options: InfoOptions, console: Console) -> None:
    """Print what was asked for."""
    if options.what == "plugins":
        found = plugins()
        console.result({"plugins": found}, _plugin_table(found))
    elif options.what == "presets":
        found = {name: preset_facts(name) for name in presets.names()}
        console.result({"presets": found}, preset_table(found))
    else:
        path = Path(options.what)
        header = _header(path, options)
        command = advice(options.what, header, {"format": options.format, "backbone": options.backbone})
        about = header.document()
        kept = _averages(path) if (path / INSIDE).exists() else []
        document = {"path": options.what, "header": about, "sample": command} | ({"averages": kept} if kept else {})
        body = "\n".join(map(printable, write_yaml(about, unicode=True).rstrip().split("\n")))
        text = f"{summarize(header, command)}\n{body}{_average_table(kept)}"
        console.result(document, text)


def plugins() -> list[dict[str, str]]:
    """Every plugin with its kind and who provides it; a name that two packages claim is listed twice."""
    return [
        {
            "group": group,
            "name": name,
            "distribution": entry.dist.name if entry.dist else "?",
            "version": entry.dist.version if entry.dist else "?",
            "target": entry.value,
        }
        for group in registry.GROUPS
        for name, entries in registry.providers(group).items()
        for entry in entries
    ]


def _plugin_table(found: list[dict[str, str]]) -> str:
    lines = []
    for group, what in registry.GROUPS.items():
        rows = [p for p in found if p["group"] == group]
        lines += [f"{what} ({group})", *(f"  {p['name']:<20}{p['distribution']} {p['version']}" for p in rows)]
    return "\n".join(lines)


def _averages(run: Path) -> list[dict[str, Any]]:
    """Every average of a run: the file, how it was averaged, and after how many images."""
    from cmtool.files.runs import stored_averages

    return [
        {"path": str(path), "track": header.average.get("track", "?"), "images": header.images}
        for path, header in stored_averages(run)
    ]


def _average_table(kept: list[dict[str, Any]]) -> str:
    rows = [f"  {printable(a['track']):<20}{a['images']:>12,}  {printable(a['path'])}" for a in kept]
    return "\n".join(["\n\naverages (track, images, file)", *rows]) if rows else ""


def _header(path: Path, options: InfoOptions) -> Header:
    path = find_bundled(path)
    if not path.exists():
        beside = [str(other) for other in path.parent.iterdir()] if path.parent.is_dir() else []
        near = closest(str(path), ("plugins", "presets", *NAMES, *beside))
        hint = f"did you mean '{near}'?" if near else "cmtool info takes plugins, presets, a checkpoint or a run"
        raise MissingInput(f"there is no file {path}", hint)
    from cmtool.files.container import holds
    from cmtool.files.header import KEY, read_header

    inside = path / INSIDE
    path = inside if inside.exists() else path
    if holds(path, KEY):
        return read_header(path, whole=True)
    from cmtool.files.model_files import open_any
    from cmtool.pipelines.inputs import checkpoint_path  # which needs torch

    return open_any(checkpoint_path(path), format=options.format, backbone=options.backbone).header


SCORE_FLAGS = "--solver heun --steps 18"  # what sample does with a score model when it is told nothing


def summarize(header: Header, command: str) -> str:
    """The lines, as comments of YAML, before the header itself; ``command`` is the advice."""
    return "\n".join(f"# {printable(line)}" for line in _summary_lines(header, command))


def advice(path: str, header: Header, said: Mapping[str, Mapping[str, Any] | None]) -> str:
    """A command that samples the model with the levels that suit it; ``said`` is what its file left open."""
    told = [f"{group}.{key}={value}" for group, given in said.items() for key, value in (given or {}).items()]
    flags = [f"--set {shlex.quote(one)}" for one in told]
    walked = header.kind == "score" and not header.sigmas
    steps = len(header.sigmas) + (1 if header.kind == "consistency" else 0)
    return " ".join(
        [f"cmtool sample --model {shlex.quote(path)}", *flags, SCORE_FLAGS if walked else f"--steps {steps}"]
    )


def _summary_lines(header: Header, command: str) -> Iterator[str]:
    size = f", {header.parameters:,} parameters" if header.parameters else ""
    classes = f" of {header.num_classes} classes" if header.num_classes else ""
    makes = "images" if len(header.shape) == 3 else "points"
    sides = "x".join(map(str, header.shape))
    yield f"{header.kind} model for {sides} {makes}{classes}: {header.backbone.get('name')}{size}"
    about = header.preconditioning
    told = ", ".join(f"{key} {about[key]}" for key in ("form", "time", "sigma_data") if key in about)
    yield f"noise levels {header.sigma_min:g} to {header.sigma_max:g}; parameterisation: {told}"
    if header.licence:
        yield f"licence: {header.licence}{', not for commercial use' if header.noncommercial else ''}"
    for parent in header.parents:
        yield f"made from {parent.get('path')} ({str(parent.get('sha256'))[:12]})"
    levels = [header.sigma_max, *header.sigmas] if header.kind == "consistency" else header.sigmas
    yield f"sample it with: {command}" + (f"  (at {', '.join(f'{x:g}' for x in levels)})" if levels else "")


TRAINING_COMMANDS = {cls.command: cls for cls in (TrainScoreOptions, DistillOptions, TrainCtOptions)}


def preset_facts(name: str) -> dict[str, Any]:
    """Everything a preset says that is no option, with its images and, where the arithmetic is known, its PFLOP."""
    said = {key: entry.value for key, entry in parse_yaml(presets.read(name), f"preset {name}").items()}
    found = {key: said[key] for key in presets.FACTS if key in said}
    cost = {"images": said["images"]} | found.get("cost", {})
    if "gflop" in cost:
        cost["pflop"] = round(cost["images"] * cost["gflop"] / 1e6, 1)
    return found | {"command": preset_commands(name), "cost": cost, "missing": missing_for_preset(name)}


def missing_for_preset(name: str) -> list[str]:
    """The plugins a preset names that are not installed, as ``network architecture 'adm'``."""
    said, found = parse_yaml(presets.read(name), f"preset {name}"), set()
    for command in preset_commands(name):
        for key, d in option_fields(TRAINING_COMMANDS[command]).items():
            if d.group and key in said:
                value = said[key].value
                plugin = value if isinstance(value, str) else value["name"]
                if plugin not in registry.names(d.group):
                    found.add(f"{registry.GROUPS[d.group]} '{plugin}'")
    return sorted(found)


def preset_table(found: dict[str, dict[str, Any]]) -> str:
    """Two lines a preset, figures and words, and what the marks mean."""
    rows = [["preset", "for", "images", "PFLOP", "FID (NFE)"], *starmap(_preset_row, found.items())]
    name, command, images, pflop, _ = (max(map(len, column)) for column in zip(*rows, strict=True))
    lines = [f"{a:<{name}}  {b:<{command}}  {c:>{images}}  {d:>{pflop}}  {e}".rstrip() for a, b, c, d, e in rows]
    for i, preset in enumerate(found.values(), start=1):
        needs = f" Needs the {' and the '.join(preset['missing'])}." if preset["missing"] else ""
        lines[i] += f"\n    {preset['about']}{needs}"
    return "\n".join([*lines, "* recalled, not verified; sources and how the cost was counted: --json"])


def _preset_row(name: str, preset: dict[str, Any]) -> list[str]:
    cost, recalled = preset["cost"], preset.get("recalled", [])
    expected = (f"{fid:.2f}{'*' if n in recalled else ''} ({n})" for n, fid in preset.get("fid", {}).items())
    pflop = f"{cost['pflop']:,.0f}" if "pflop" in cost else ""
    return [name, ", ".join(preset["command"]), f"{cost['images']:,}", pflop, ", ".join(expected)]
