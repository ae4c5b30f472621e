"""``cmtool info``: installed plugins, presets, or the header of a checkpoint; never needs torch."""

from pathlib import Path
from typing import Any

from cmtool import presets, registry
from cmtool.bundled import NAMES, named
from cmtool.commands import recipes
from cmtool.commands.console import Console
from cmtool.commands.portrait import advice, portrait
from cmtool.errors import MissingInput, closest, printable
from cmtool.files.header import Header
from cmtool.settings import InfoOptions
from cmtool.yamlfile import write

__all__ = ["run"]

INSIDE = "model.safetensors"  # the checkpoint of a run


def run(options: InfoOptions, console: Console) -> None:
    """Print what was asked for."""
    if options.what == "plugins":
        found = plugins()
        console.result({"plugins": found}, _plugin_table(found))
    elif options.what == "presets":
        found = {name: recipes.facts(name) for name in presets.names()}
        console.result({"presets": found}, recipes.table(found))
    else:
        path = Path(options.what)
        header = _header(path, options)
        command = advice(options.what, header, {"format": options.format, "backbone": options.backbone})
        about = header.document()
        kept = _averages(path) if (path / INSIDE).exists() else []
        document = {"path": options.what, "header": about, "sample": command} | ({"averages": kept} if kept else {})
        body = "\n".join(map(printable, write(about, unicode=True).rstrip().split("\n")))
        text = f"{portrait(header, command)}\n{body}{_average_table(kept)}"
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
    from cmtool.files.averages import found

    return [
        {"path": str(path), "track": header.average.get("track", "?"), "images": header.images}
        for path, header in found(run)
    ]


def _average_table(kept: list[dict[str, Any]]) -> str:
    rows = [f"  {printable(a['track']):<20}{a['images']:>12,}  {printable(a['path'])}" for a in kept]
    return "\n".join(["\n\naverages (track, images, file)", *rows]) if rows else ""


def _header(path: Path, options: InfoOptions) -> Header:
    path = named(path)
    if not path.exists():
        beside = [str(other) for other in path.parent.iterdir()] if path.parent.is_dir() else []
        near = closest(str(path), ("plugins", "presets", *NAMES, *beside))
        hint = f"did you mean '{near}'?" if near else "cmtool info takes plugins, presets, a checkpoint or a run"
        raise MissingInput(f"there is no file {path}", hint)
    from cmtool.files.envelope import holds
    from cmtool.files.header import KEY, read_header

    inside = path / INSIDE
    path = inside if inside.exists() else path
    if holds(path, KEY):
        return read_header(path, whole=True)
    from cmtool.commands.models import checkpoint  # which needs torch
    from cmtool.files.opening import open_any

    return open_any(checkpoint(path), format=options.format, backbone=options.backbone).header
