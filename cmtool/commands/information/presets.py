"""Presets: what each says of itself, what it costs, and which of its plugins are missing."""

from itertools import starmap
from typing import Any

from cmtool import presets
from cmtool.options import registry
from cmtool.options.fields import option_fields
from cmtool.options.sources import preset_commands
from cmtool.options.yaml_files import parse_yaml
from cmtool.settings import DistillOptions, TrainCtOptions, TrainScoreOptions

__all__ = ["TRAINING_COMMANDS", "missing_for_preset", "preset_facts", "preset_table"]

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
