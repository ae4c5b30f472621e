"""Where values come from: YAML files, presets, the environment, ``--set`` and flags."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from cmtool import presets
from cmtool.declarations import Declaration, Options, declarations, long_flag
from cmtool.errors import UsageError
from cmtool.home import expanded
from cmtool.textfile import read_text
from cmtool.yamlfile import LARGEST, parse, parse_value

__all__ = [
    "FLAGS",
    "Given",
    "from_environment",
    "from_file",
    "from_flag",
    "from_preset",
    "from_set",
    "from_shared_file",
    "normal",
]

PREFIX, FLAGS = "CMTOOL_", "the flags"


class Given(NamedTuple):
    """A value somebody gave, and the words that say where."""

    key: str
    value: Any
    place: str
    source: str = ""


def normal(key: str) -> str:
    """Hyphens and underscores are the same in a key."""
    return key.strip().replace("-", "_")


def from_environment(declared: Mapping[str, Declaration], environment: Mapping[str, str]) -> Iterator[Given]:
    """``CMTOOL_DEVICE`` and the like; an empty variable says nothing."""
    for key, d in declared.items():
        variable = PREFIX + key.upper()
        if d.scalar and environment.get(variable):
            yield Given(key, environment[variable], variable)


def from_flag(declared: Mapping[str, Declaration], key: str, value: Any) -> Given:
    """What was typed behind a flag, or as an argument."""
    d = declared.get(normal(key))
    place = d.metavar or key.upper() if d and d.positional else long_flag(key)
    return Given(key, value, place, FLAGS)


def _entries(text: str, name: str, skip: tuple[str, ...] = ()) -> Iterator[Given]:
    for key, entry in parse(text, name).items():
        if key not in skip:
            yield Given(key, entry.value, f"'{key}' in {name}, line {entry.line},", f"{name}, line {entry.line}")


def from_file(path: Path) -> Iterator[Given]:
    """The options of a YAML file."""
    text = read_text(Path(expanded(path)), 4 * LARGEST, "--config takes a YAML file of options")
    return _entries(text, str(path))


def from_shared_file(cls: type[Options], path: Path) -> Iterator[Given]:
    """The options of a file for all commands: those that only others have are skipped, those none has are mistakes."""
    family = list(Options.__subclasses__())
    for kind in family:
        family += kind.__subclasses__()
    others = {key for kind in family for key in declarations(kind)} - set(declarations(cls))
    return (item for item in from_file(path) if normal(item.key) not in others)


def from_preset(cls: type[Options], name: str) -> Iterator[Given]:
    """The options of a preset, if it is for this command."""
    commands = preset_commands(name)
    if commands and cls.command not in commands:
        raise UsageError(f"preset '{name}' is not for {cls.command}", f"it is for: {', '.join(commands)}")
    return _entries(presets.read(name), f"preset {name}", skip=presets.FACTS)


def preset_commands(name: str) -> list[str]:
    """The commands a preset is for; empty when it is for any."""
    entry = parse(presets.read(name), f"preset {name}").get("command")
    return [] if entry is None else [entry.value] if isinstance(entry.value, str) else list(entry.value)


def from_set(text: str, declared: Mapping[str, Declaration]) -> Given:
    """``KEY=VALUE``, or ``KEY.PART=VALUE`` for an option of a plugin, whose value is read as YAML."""
    path, equals, value = text.partition("=")
    if not equals or not path.strip():
        raise UsageError(f"--set must be KEY=VALUE, not '{text}'")
    key, *parts = path.split(".")
    d = declared.get(normal(key))
    if parts and d and not d.plugin:
        raise UsageError(f"--set {path}: option '{key}' has no parts", f"write --set {key}=VALUE")
    parsed = parse_value(value, f"--set {path}") if d and d.plugin else value
    for part in reversed(parts):
        parsed = {part: parsed}
    return Given(key, parsed, f"--set {path}", "--set")
