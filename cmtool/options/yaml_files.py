"""Read option files: plain YAML mappings, with the line of every key, safe against hostile text."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import yaml

from cmtool.errors import UsageError

__all__ = ["Entry", "parse_value", "parse_yaml", "write_yaml"]

LARGEST = 250_000  # characters, which take a few seconds
MOST_NODES = 100_000  # after aliases are expanded


class Entry(NamedTuple):
    """A value of the file and the line its key stands on."""

    value: Any
    line: int


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads 1e-3 as text, 2026-01-31 as a date, 1:30 as ninety and 010 as eight; nobody means that."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, pattern) for tag, pattern in rules if tag.split(":")[-1] not in ("timestamp", "int", "float")]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    yaml_constructors = {  # noqa: RUF012
        tag: make
        for tag, make in yaml.SafeLoader.yaml_constructors.items()
        if tag is None or tag.split(":")[-1] in ("null", "bool", "int", "float", "str", "seq", "map")
    }


_NUMBERS = {
    "int": r"[-+]?(0|[1-9][\d_]*)",
    "float": r"[-+]?(\d[\d_]*\.\d*|\.\d+|\d+(?=[eE]))([eE][-+]?\d+)?|[-+]?\.(inf|nan)",
}


class _Dumper(yaml.SafeDumper):
    """Quotes text that either YAML 1.1 or our reader would take for something else."""


for _tag, _pattern in _NUMBERS.items():
    for _either in (_Loader, _Dumper):
        _either.add_implicit_resolver(
            f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_pattern})$"), list("-+.0123456789")
        )


def write_yaml(document: Mapping[str, Any], unicode: bool = False) -> str:
    """The YAML text of a mapping of plain values, which ``parse_yaml`` reads back exactly; ASCII unless ``unicode``."""
    return yaml.dump(dict(document), Dumper=_Dumper, sort_keys=False, allow_unicode=unicode, width=100)


def parse_yaml(text: str, name: str) -> dict[str, Entry]:
    """The top-level keys of a YAML mapping; UsageError naming ``name`` and the line for anything else."""
    if len(text) > LARGEST:
        raise UsageError(f"{name} is larger than {LARGEST // 1000} kB, which no option file is")
    try:
        return _entries(text, name)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise UsageError(f"{name}{where} is not YAML: {getattr(error, 'problem', None) or error}") from error
    except RecursionError as error:
        raise UsageError(f"{name} is nested too deeply") from error


def parse_value(text: str, place: str) -> Any:
    """One value as YAML reads it: ``3``, ``1e-3``, ``[1, 2]``, ``true``, ``text``."""
    return parse_yaml(f"value: {text}", place)["value"].value


def _entries(text: str, name: str) -> dict[str, Entry]:
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return {}
        if not isinstance(root, yaml.MappingNode):
            raise UsageError(f"{name} is not a mapping of options", "write one 'option: value' a line")
        if _size(root, {}) > MOST_NODES:
            raise UsageError(f"{name} holds more values than any option file, counting aliases")
        entries: dict[str, Entry] = {}
        for key_node, node in root.value:
            line = key_node.start_mark.line + 1
            key = str(_construct(loader, key_node, f"{name}, line {line}"))
            if key in entries:
                raise UsageError(f"'{key}' in {name}, line {line} was given before, in line {entries[key].line}")
            entries[key] = Entry(_construct(loader, node, f"'{key}' in {name}, line {line}"), line)
        return entries
    finally:
        loader.dispose()


def _construct(loader: _Loader, node: yaml.Node, place: str) -> Any:
    """The value of a node; UsageError that names the place where a tag or a number cannot be."""
    try:
        return loader.construct_object(node, deep=True)
    except (yaml.YAMLError, RecursionError):
        raise
    except Exception as error:  # a constructor takes for granted that its tag fits
        raise UsageError(f"{place} holds a value that cannot be: {type(error).__name__}: {error}") from error


def _size(node: yaml.Node, known: dict[int, float]) -> float:
    """The nodes below ``node`` when every alias is written out; infinite for one that contains itself."""
    if id(node) not in known:
        known[id(node)] = float("inf")
        children = node.value if isinstance(node, yaml.CollectionNode) else []
        flat = [x for pair in children for x in pair] if isinstance(node, yaml.MappingNode) else children
        known[id(node)] = 1 + sum(_size(child, known) for child in flat)
    return known[id(node)]
