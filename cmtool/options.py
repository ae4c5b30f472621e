"""Options, declared once: a frozen dataclass per command, filled from defaults, presets, YAML, environment and flags.

    defaults < preset < --config FILE (the last wins) < environment CMTOOL_<OPTION> < --set KEY=VALUE < flags

Every value, wherever it comes from, is coerced and checked here, and complaints name the place it came from.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeVar, get_args, get_type_hints

from cmtool import presets, registry
from cmtool.errors import MissingInput, UsageError, closest, unknown
from cmtool.values import Check, Expected, Seeds, Spec, coerce

__all__ = ["Declaration", "Options", "declarations", "dump", "load", "option", "preset_commands"]

PREFIX = "CMTOOL_"


class Options:
    """What every options class has besides its fields: the command's name, and keys it refuses with a reason."""

    command: ClassVar[str]
    refused: ClassVar[Mapping[str, tuple[str, str]]] = {}


O = TypeVar("O", bound=Options)  # noqa: E741


@dataclass(frozen=True)
class Declaration:
    """Everything about one option that is not its value; ``name`` is the attribute, ``key`` what users write."""

    help: str
    default: Any = MISSING
    flag: str | None = None
    check: Check | None = None
    choices: tuple[str, ...] = ()
    metavar: str | None = None
    positional: bool = False
    yaml_only: bool = False
    key: str = ""
    group: str | None = None
    section: str = "Input"
    required: tuple[str, str] | None = None
    parse: Callable[[str], Mapping[str, Any]] | None = None
    shown: str | None = None
    name: str = ""
    kind: Any = str

    @property
    def long(self) -> str:
        """``--micro-batch`` for the key ``micro_batch``; a key of one letter has only its short flag."""
        return f"--{self.key.replace('_', '-')}" if len(self.key) > 1 else f"-{self.key}"

    @property
    def placeholder(self) -> str:
        """What stands for the value in the help."""
        kinds = [kind for kind in (self.kind, *get_args(self.kind)) if kind in _PLACEHOLDERS]
        return "|".join(self.choices) or self.metavar or (_PLACEHOLDERS[kinds[0]] if kinds else "VALUE")

    @property
    def plugin(self) -> bool:
        """Whether the value is a name with options of its own."""
        return Spec in (self.kind, *get_args(self.kind))

    @property
    def scalar(self) -> bool:
        """Whether an environment variable may set it."""
        return not self.positional and not self.yaml_only and {self.kind, *get_args(self.kind)} <= _SCALARS


_PLACEHOLDERS = {int: "N", float: "X", Path: "FILE", Spec: "NAME"}
_SCALARS = {int, float, bool, str, Path, type(None)}


def option(default: Any = MISSING, *, help: str, **about: Any) -> Any:
    """Declare a field of an options class; the type is the field's annotation.

    ``flag`` is a short flag, ``check`` a predicate, ``choices`` the words allowed, ``group`` the plugins a Spec names,
    ``parse`` turns the text of a Spec into its mapping, ``required`` is (sentence, hint) for when it is not given,
    ``shown`` says what the default None means, ``key`` is what users write where the attribute cannot be called so,
    ``section`` is its heading in the help.
    """
    metadata = {"option": (default, {"help": help, **about})}
    if isinstance(default, dict):  # a dataclass refuses a mutable default, and ours is never changed
        return field(default_factory=lambda: Spec(default), kw_only=True, metadata=metadata)
    return field(default=default, kw_only=True, metadata=metadata)


def declarations(cls: type[Options]) -> dict[str, Declaration]:
    """The options of a class by key, in the order of declaration."""
    kinds = get_type_hints(cls)
    found = (_declaration(f, kinds[f.name]) for f in fields(cls))  # type: ignore[arg-type]
    return {declared.key: declared for declared in found}


def _declaration(f: Field[Any], kind: Any) -> Declaration:
    default, about = f.metadata["option"]
    return Declaration(default=default, name=f.name, kind=kind, **{"key": f.name, **about})


class Given(NamedTuple):
    """A value somebody gave, and the words that say where."""

    key: str
    value: Any
    place: str
    source: str = ""


def load(
    cls: type[O],
    flags: Mapping[str, Any],
    sets: Sequence[str] = (),
    configs: Sequence[str | Path] = (),
    preset: str | None = None,
    environment: Mapping[str, str] = os.environ,
) -> O:
    """The options of a command, from the weakest source to the strongest.

    ``flags`` maps keys to the text (or bool) of flags and arguments, None where one was not given. Raises UsageError in
    one sentence that names the source, and MissingInput when a file of ``configs`` is not there.
    """
    declared = declarations(cls)
    given: dict[str, list[Given]] = {key: [] for key in declared}
    for item in _sources(cls, declared, flags, sets, configs, preset, environment):
        given[_known(cls, declared, item)].append(item)
    return cls(**{d.name: _resolve(d, given[key]) for key, d in declared.items()})


def _sources(cls, declared, flags, sets, configs, preset, environment) -> Iterator[Given]:
    if preset is not None:
        yield from _preset(cls, preset)
    for config in configs:
        yield from _file(Path(config))
    for key, d in declared.items():
        variable = PREFIX + key.upper()
        if d.scalar and environment.get(variable):
            yield Given(key, environment[variable], variable, f"the variable {variable}")
    for text in sets:
        yield _set(text, declared)
    for key, value in flags.items():
        if value is not None:
            d = declared.get(_normal(key))
            yield Given(key, value, (d.metavar or key.upper()) if d and d.positional else d.long if d else f"--{key}")


def _normal(key: str) -> str:
    return key.strip().replace("-", "_")


def _known(cls: type[Options], declared: Mapping[str, Declaration], item: Given) -> str:
    key = _normal(item.key)
    if key in cls.refused:
        raise UsageError(*cls.refused[key])
    if key not in declared:
        error = unknown("option", item.key, declared)
        raise UsageError(f"{error.message} in {item.source}", error.hint)
    return key


def _entries(text: str, name: str, skip: tuple[str, ...] = ()) -> Iterator[Given]:
    from cmtool.yamlfile import parse

    for key, entry in parse(text, name).items():
        if key not in skip:
            yield Given(key, entry.value, f"'{key}' in {name}, line {entry.line},", f"{name}, line {entry.line}")


def _file(path: Path) -> Iterator[Given]:
    try:
        text = path.expanduser().read_text("utf-8-sig")
    except FileNotFoundError as error:
        raise MissingInput(f"there is no file {path}", "--config takes a YAML file of options") from error
    except (UnicodeDecodeError, IsADirectoryError) as error:
        raise UsageError(f"{path} is not a text file", "--config takes a YAML file of options") from error
    return _entries(text, str(path))


def _preset(cls: type[Options], name: str) -> Iterator[Given]:
    commands = preset_commands(name)
    if commands and cls.command not in commands:
        raise UsageError(f"preset '{name}' is not for {cls.command}", f"it is for: {', '.join(commands)}")
    return _entries(presets.read(name), f"preset {name}", skip=("about", "command"))


def preset_commands(name: str) -> list[str]:
    """The commands a preset is for; empty when it is for any."""
    from cmtool.yamlfile import parse

    entry = parse(presets.read(name), f"preset {name}").get("command")
    return [] if entry is None else [entry.value] if isinstance(entry.value, str) else list(entry.value)


def _set(text: str, declared: Mapping[str, Declaration]) -> Given:
    path, equals, value = text.partition("=")
    if not equals or not path.strip():
        raise UsageError(f"--set must be KEY=VALUE, not '{text}'")
    key, *parts = path.split(".")
    d = declared.get(_normal(key))
    if parts and d and not d.plugin:
        raise UsageError(f"--set {path}: option '{key}' has no parts", f"write --set {key}=VALUE")
    parsed: Any = value
    if d and d.plugin:
        from cmtool.yamlfile import parse_value

        parsed = parse_value(value, f"--set {path}")
    for part in reversed(parts):
        parsed = {part: parsed}
    return Given(key, parsed, f"--set {path}", "--set")


def _resolve(d: Declaration, given: list[Given]) -> Any:
    if not given and d.required:
        raise UsageError(*d.required)
    values = [(item, _value(d, item)) for item in given]
    if d.plugin:
        merged = _merge([d.default, *(value for _, value in values)])
        return _in_registry(d, merged)
    return values[-1][1] if values else d.default


def _value(d: Declaration, item: Given) -> Any:
    value = item.value
    if d.plugin and d.parse and isinstance(value, str):
        return Spec(d.parse(value))
    try:
        value = coerce(d.kind, value)
    except Expected as wanted:
        raise UsageError(f"{item.place} must be {wanted}, not {_quoted(item.value)}") from wanted
    if value is None:
        return None
    if d.choices and value not in d.choices:
        near = closest(str(value), d.choices)
        hint = f"did you mean '{near}'?" if near else None
        raise UsageError(f"{item.place} must be one of {', '.join(d.choices)}, not {_quoted(item.value)}", hint)
    if d.check and not d.check.holds(value):
        raise UsageError(f"{item.place} must be {d.check.words}, not {item.value}")
    return value


def _quoted(value: Any) -> str:
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _merge(layers: Iterable[Spec | None]) -> Spec | None:
    """The last name wins; options count where they were given for that name, or for none in particular."""
    present = [layer for layer in layers if layer is not None and layer is not MISSING]
    names = [layer.name for layer in present if layer.name]
    merged = Spec(name=names[-1]) if names else Spec()
    for layer in present:
        if not layer.name or layer.name == merged.name:
            merged.update(layer)
    return merged or None


def _in_registry(d: Declaration, spec: Spec | None) -> Spec | None:
    if d.group and spec and spec.name not in registry.names(d.group):
        raise unknown(registry.GROUPS[d.group], spec.name, registry.names(d.group))
    return spec


def dump(options: Options) -> str:
    """YAML that is a valid ``--config`` and gives the same options again."""
    import yaml

    plain = {key: _plain(getattr(options, d.name)) for key, d in declarations(type(options)).items()}
    return f"# cmtool {options.command}\n" + yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=100)


def _plain(value: Any) -> Any:
    if isinstance(value, Spec):
        return value.name if set(value) == {"name"} else {k: _plain(v) for k, v in value.items()}
    if isinstance(value, Path | Seeds):
        return str(value)
    return list(value) if isinstance(value, tuple) else value
