"""Read option files: plain YAML mappings, with the line of every key, safe against hostile text."""

import re
from typing import Any, NamedTuple

import yaml

from cmtool.errors import UsageError

__all__ = ["Entry", "parse", "parse_value"]

LARGEST = 1_000_000  # characters
MOST_NODES = 100_000  # after aliases are expanded


class Entry(NamedTuple):
    """A value of the file and the line its key stands on."""

    value: Any
    line: int


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads 1e-3 as text and 2026-01-31 as a date; nobody who writes a rate or a folder means that."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, pattern) for tag, pattern in rules if not tag.endswith(":timestamp")]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d[\d_]*\.?\d*|\.\d+)[eE][-+]?\d+"), list("-+.0123456789")
)


def parse(text: str, name: str) -> dict[str, Entry]:
    """The top-level keys of a YAML mapping; UsageError naming ``name`` and the line for anything else."""
    if len(text) > LARGEST:
        raise UsageError(f"{name} is larger than {LARGEST // 1_000_000} MB, which no option file is")
    try:
        return _entries(text, name)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise UsageError(f"{name}{where} is not YAML: {getattr(error, 'problem', None) or error}") from error
    except ValueError as error:
        raise UsageError(f"{name} holds a value that cannot be: {error}") from error
    except RecursionError as error:
        raise UsageError(f"{name} is nested too deeply") from error


def parse_value(text: str, place: str) -> Any:
    """One value as YAML reads it: ``3``, ``1e-3``, ``[1, 2]``, ``true``, ``text``."""
    return parse(f"value: {text}", place)["value"].value


def _entries(text: str, name: str) -> dict[str, Entry]:
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return {}
        if not isinstance(root, yaml.MappingNode):
            raise UsageError(f"{name} is not a mapping of options", "write one 'option: value' a line")
        if _size(root, {}) > MOST_NODES:
            raise UsageError(f"{name} repeats its aliases too often")
        entries: dict[str, Entry] = {}
        for key_node, node in root.value:
            key, line = str(loader.construct_object(key_node)), key_node.start_mark.line + 1
            if key in entries:
                raise UsageError(f"'{key}' in {name}, line {line} was given before, in line {entries[key].line}")
            entries[key] = Entry(loader.construct_object(node, deep=True), line)
        return entries
    finally:
        loader.dispose()


def _size(node: yaml.Node, known: dict[int, float]) -> float:
    """The nodes below ``node`` when every alias is written out; infinite for one that contains itself."""
    if id(node) not in known:
        known[id(node)] = float("inf")
        children = node.value if isinstance(node, yaml.CollectionNode) else []
        flat = [x for pair in children for x in pair] if isinstance(node, yaml.MappingNode) else children
        known[id(node)] = 1 + sum(_size(child, known) for child in flat)
    return known[id(node)]
