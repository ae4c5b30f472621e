"""Options, declared once: a frozen dataclass per command, filled from defaults, presets, YAML, environment and flags.

    defaults < the user's own file < preset < --config FILE (the last wins) < environment CMTOOL_<OPTION>
             < --set KEY=VALUE < flags

Every value, wherever it comes from, is coerced and checked here, and complaints name the place it came from.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

from cmtool.errors import UsageError, closest, unknown_name
from cmtool.options import registry, sources
from cmtool.options.coerce import coerce, path_text
from cmtool.options.fields import OptionField, Options, option_fields
from cmtool.options.sources import Given
from cmtool.options.types import Expected, Seeds, Spec
from cmtool.options.yaml_files import write_yaml

__all__ = ["dump_options", "gather", "load_options", "resolve"]

O = TypeVar("O", bound=Options)  # noqa: E741
MISTAKEN = {"solvers": "samplers", "samplers": "solvers"}  # each for the other


def load_options(
    cls: type[O],
    flags: Mapping[str, Any],
    sets: Sequence[str] = (),
    configs: Sequence[str | Path] = (),
    preset: str | None = None,
    environment: Mapping[str, str] = os.environ,
    user: Path | None = None,
) -> O:
    """The options of a command, from the weakest source to the strongest.

    ``flags`` maps keys to the text (or bool) of flags and arguments, None where one was not given. ``user`` is a file
    of options for all commands, of which each takes those it has. Raises UsageError in one sentence that names the
    source, and MissingInput when a file of ``configs`` is not there.
    """
    return resolve(cls, gather(cls, flags, sets, configs, preset, environment, user))


def gather(
    cls: type[Options],
    flags: Mapping[str, Any],
    sets: Sequence[str] = (),
    configs: Sequence[str | Path] = (),
    preset: str | None = None,
    environment: Mapping[str, str] = os.environ,
    user: Path | None = None,
) -> dict[str, list[Given]]:
    """What was given for each option, from the weakest source to the strongest; errors as of ``load_options``."""
    declared = option_fields(cls)
    given: dict[str, list[Given]] = {key: [] for key in declared}
    items = chain(
        sources.from_shared_file(cls, user) if user else (),
        sources.from_preset(cls, preset) if preset is not None else (),
        *(sources.from_file(Path(config)) for config in configs),
        sources.from_environment(declared, environment),
        (sources.from_set(text, declared) for text in sets),
        (sources.from_flag(declared, key, value) for key, value in flags.items() if value is not None),
    )
    for item in items:
        given[_key_of(cls, declared, item)].append(item)
    return given


def resolve(cls: type[O], given: Mapping[str, Sequence[Given]]) -> O:
    """The options that the last that was given for each makes; UsageError."""
    return cls(**{d.name: _resolve(d, given[key]) for key, d in option_fields(cls).items()})


def _key_of(cls: type[Options], declared: Mapping[str, OptionField], item: Given) -> str:
    key = sources.normal(item.key)
    if key in cls.refused:
        raise UsageError(*cls.refused[key])
    if key not in declared:
        error = unknown_name("option", item.key, declared)
        raise UsageError(f"{error.message} in {item.source}", error.hint)
    return key


def _resolve(d: OptionField, given: Sequence[Given]) -> Any:
    if not given and d.required:
        raise UsageError(*d.required)
    values = [(item, _value(d, item)) for item in given]
    if d.plugin:
        merged = _merge([d.default, *(value for _, value in values)])
        if merged and d.parse:  # the text said that there is none
            merged = Spec({key: value for key, value in merged.items() if value is not None})
        return _in_registry(d, merged)
    if values and d.plugins:
        _check_plugins(d, *values[-1])
    return values[-1][1] if values else d.default


def _check_plugins(d: OptionField, item: Given, specs: tuple[Spec, ...]) -> None:
    names = [spec.name for spec in specs]
    for spec in specs:
        _in_registry(d, spec)
    if len(set(names)) < len(names):
        raise UsageError(f"{item.place} must name each {registry.GROUPS[d.group or '']} once, not {_quote(names)}")


def _value(d: OptionField, item: Given) -> Any:
    value = item.value
    if d.plugin and d.parse and isinstance(value, str):
        return Spec(d.parse(value))
    try:
        value = coerce(d.kind, value)
        value = path_text(value) if d.path and value is not None else value
    except Expected as wanted:
        raise UsageError(f"{item.place} must be {wanted}, not {_quote(item.value)}") from wanted
    if value is None:
        return None
    word = value.name if isinstance(value, Spec) else value
    if d.choices and word not in d.choices and (word or not isinstance(value, Spec)):
        near = closest(str(word), d.choices)
        hint = f"did you mean '{near}'?" if near else None
        raise UsageError(f"{item.place} must be one of {', '.join(d.choices)}, not {_quote(word)}", hint)
    if d.check and (words := d.check.complaint(value)):
        raise UsageError(f"{item.place} must be {words}, not {_quote(item.value, plain=True)}")
    return value


def _quote(value: Any, plain: bool = False) -> str:
    try:
        text = repr(value) if isinstance(value, str) and not plain else str(value)
    except ValueError:  # Python writes out no number of thousands of digits
        return "a number of thousands of digits"
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


def _in_registry(d: OptionField, spec: Spec | None) -> Spec | None:
    """The same with a name, which is registered; without one where whoever reads the options chooses the plugin."""
    if spec and not spec.name and d.default_name:
        spec = Spec({"name": d.default_name, **spec})
    if d.group and spec and spec.name and spec.name not in registry.names(d.group):
        error = unknown_name(registry.GROUPS[d.group], spec.name, registry.names(d.group))
        other = MISTAKEN.get(d.group)
        if other and spec.name in registry.names(other):
            error.hint = f"it is a {registry.GROUPS[other]}: --{registry.GROUPS[other]} {spec.name}"
        raise error
    return spec


def dump_options(options: Options) -> str:
    """YAML that is a valid ``--config`` and gives the same options again."""
    plain = {key: _plain(getattr(options, d.name)) for key, d in option_fields(type(options)).items()}
    return f"# cmtool {options.command}\n" + write_yaml(plain)


def _plain(value: Any) -> Any:
    if isinstance(value, Spec):
        return value.name if set(value) == {"name"} else {k: _plain(v) for k, v in value.items()}
    if isinstance(value, Path | Seeds):
        return str(value)
    return [_plain(item) for item in value] if isinstance(value, tuple) else value
