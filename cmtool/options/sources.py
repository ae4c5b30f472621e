"""Where the value of an option comes from (flag, --set, file, preset, environment), and saying so in an error."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, get_args

from cmtool import presets
from cmtool.errors import BadFile, CmtoolError, MissingInput, UsageError
from cmtool.options.fields import OptionField, Options, long_flag, option_fields
from cmtool.options.hint_words import word_hint
from cmtool.options.yaml_files import LARGEST, parse_value, parse_yaml
from cmtool.text_files import read_text
from cmtool.user_paths import expand_home

__all__ = [
    "FLAGS",
    "Given",
    "from_environment",
    "from_file",
    "from_flag",
    "from_preset",
    "from_set",
    "from_shared_file",
    "name_sources",
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


def from_environment(declared: Mapping[str, OptionField], environment: Mapping[str, str]) -> Iterator[Given]:
    """``CMTOOL_DEVICE`` and the like; an empty variable says nothing."""
    for key, d in declared.items():
        variable = PREFIX + key.upper()
        if d.scalar and environment.get(variable):
            yield Given(key, environment[variable], variable)


def from_flag(declared: Mapping[str, OptionField], key: str, value: Any) -> Given:
    """What was typed behind a flag, or as an argument."""
    d = declared.get(normal(key))
    place = d.metavar or key.upper() if d and d.positional else long_flag(key)
    return Given(key, value, place, FLAGS)


def _entries(text: str, name: str, skip: tuple[str, ...] = ()) -> Iterator[Given]:
    for key, entry in parse_yaml(text, name).items():
        if key not in skip:
            yield Given(key, entry.value, f"'{key}' in {name}, line {entry.line},", f"{name}, line {entry.line}")


def from_file(path: Path) -> Iterator[Given]:
    """The options of a YAML file."""
    text = read_text(Path(expand_home(path)), 4 * LARGEST, "--config takes a YAML file of options")
    return _entries(text, str(path))


def from_shared_file(cls: type[Options], path: Path) -> Iterator[Given]:
    """The options of a file for all commands: those that only others have are skipped, those none has are mistakes."""
    family = list(Options.__subclasses__())
    for kind in family:
        family += kind.__subclasses__()
    others = {key for kind in family for key in option_fields(kind)} - set(option_fields(cls))
    return (item for item in from_file(path) if normal(item.key) not in others)


def from_preset(cls: type[Options], name: str) -> Iterator[Given]:
    """The options of a preset, if it is for this command."""
    commands = preset_commands(name)
    if commands and cls.command not in commands:
        raise UsageError(f"preset '{name}' is not for {cls.command}", f"it is for: {', '.join(commands)}")
    return _entries(presets.read(name), f"preset {name}", skip=presets.FACTS)


def preset_commands(name: str) -> list[str]:
    """The commands a preset is for; empty when it is for any."""
    entry = parse_yaml(presets.read(name), f"preset {name}").get("command")
    return [] if entry is None else [entry.value] if isinstance(entry.value, str) else list(entry.value)


def from_set(text: str, declared: Mapping[str, OptionField]) -> Given:
    """``KEY=VALUE``, or ``KEY.PART=VALUE`` for an option of a plugin, whose value is read as YAML."""
    path, equals, value = text.partition("=")
    if not equals or not path.strip():
        raise UsageError(f"--set must be KEY=VALUE, not '{text}'")
    key, *parts = path.split(".")
    d = declared.get(normal(key))
    if parts and d and not d.plugin:
        raise UsageError(f"--set {path}: option '{key}' has no parts", f"write --set {key}=VALUE")
    parsed = parse_value(value, f"--set {path}") if d and (d.plugin or d.plugins) else value
    for part in reversed(parts):
        parsed = {part: parsed}
    return Given(key, parsed, f"--set {path}", "--set")


@contextmanager
def name_sources(cls: type[Options], given: Mapping[str, Sequence[Given]]) -> Iterator[None]:
    """An error of the user that leaves the block has the sources of the options that it is about in its hint.

    Those are options whose flag it speaks of, or whose value its message names, where the environment, a file or
    ``--set`` has set them: nobody finds a wrong variable by a hint to leave out a flag.
    """
    try:
        yield
    except (UsageError, MissingInput, BadFile) as error:
        last = ((d, given[key][-1]) for key, d in option_fields(cls).items() if given[key])
        origins = [f"{d.long} was set by {item.place.rstrip(',')}" for d, item in last if _is_about(error, d, item)]
        if origins:
            error.hint = "; ".join([*([word_hint(error.hint)] if error.hint else []), *origins])
        raise


def _is_about(error: CmtoolError, d: OptionField, item: Given) -> bool:
    message = word_hint(error.sentence)
    if item.source == FLAGS or item.place in message:
        return False
    if _says(f"{message} {word_hint(error.hint or '')}", d.long):
        return True
    is_path = d.path or Path in (d.kind, *get_args(d.kind))
    return any(_says(message, word if is_path else f"'{word}'") for word in _words(item.value))


def _words(value: Any) -> list[str]:
    """How a message may call a value: by its text, or by the name and the place in a mapping."""
    texts = [value.get("name"), value.get("source")] if isinstance(value, Mapping) else [value]
    return [word for text in texts if isinstance(text, str) and text for word in {text, expand_home(text)}]


def _says(text: str, word: str) -> bool:
    """Whether the word stands there as a whole."""
    return re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", text) is not None
