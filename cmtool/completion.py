"""What a shell is offered while somebody types: names of plugins, and the options of the plugin that is chosen.

All of it is read from package metadata and source text, since a key press cannot wait for torch.
"""

import ast
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import suppress
from typing import Any

from cmtool import plugin_pages, presets
from cmtool.errors import CmtoolError
from cmtool.options import registry
from cmtool.options.fields import OptionField, Options, option_fields
from cmtool.options.load import gather
from cmtool.options.plugin_option import default_text
from cmtool.options.plugin_source import SourceOption, read_source
from cmtool.options.sources import Given, normal
from cmtool.plugin_usage import USAGE, groups

__all__ = ["complete_info", "complete_set", "complete_value", "join_bash_words", "without"]

BUNDLED = ("shapes-score", "shapes-consistency")
Offer = tuple[str, str]  # a word and what it is


def complete_value(d: OptionField, typed: str) -> Iterator[Offer]:
    """The plugins or choices of an option; behind a comma the next one, where it takes several."""
    before, comma, last = typed.rpartition(",")
    several = bool(comma) and d.several
    for word, about in _words(d):
        if word.startswith(last if several else typed):
            yield f"{before},{word}" if several else word, about


def _words(d: OptionField) -> Iterable[Offer]:
    if d.group:
        return [(p.name, p.summary) for p in plugin_pages.list_plugins(d.group)]
    return [(word, "") for word in d.choices]


def complete_info(typed: str) -> Iterator[Offer]:
    """What ``cmtool info`` takes besides files: lists, groups, plugins, presets and the models that come with it."""
    plugins = (name for group in groups() for name in registry.names(group))
    words = ["plugins", "presets", "methods", *groups(), *plugins, *presets.names(), *BUNDLED]
    return ((word, "") for word in dict.fromkeys(words) if word.startswith(typed))


def complete_set(
    cls: type[Options], typed: str, flags: Mapping[str, Any], sets: Sequence[str], preset: str | None
) -> Iterator[Offer]:
    """What may stand behind ``--set``: keys of the command, options of a plugin, and their values.

    The plugin is the one that ``flags``, ``sets`` and ``preset`` choose, else the default; where that depends on the
    model, the options of all plugins of the group are offered.
    """
    declared = option_fields(cls)
    path, equals, value = typed.partition("=")
    key, dot, _ = path.partition(".")
    d = declared.get(normal(key))
    if not dot:
        words = _key_words(d, path, value) if equals and d else _keys(declared, typed)
    elif d and d.group:
        words = _part_words(d, key, path, equals, _options(d, _chosen(cls, d, flags, sets, preset)))
    else:
        words = iter(())
    return ((word, about) for word, about in words if word.startswith(typed))


def _keys(declared: Mapping[str, OptionField], typed: str) -> Iterator[Offer]:
    """The keys that begin so; of one that is a plugin the way to its options, too."""
    for d in declared.values():
        if d.key.startswith(typed):
            yield f"{d.key}=", d.help
            if d.group:
                yield f"{d.key}.", f"options of the {registry.GROUPS[d.group]}"


def _key_words(d: OptionField, path: str, value: str) -> Iterator[Offer]:
    words = [("true", ""), ("false", "")] if d.switch else complete_value(d, value)
    return ((f"{path}={word}", about) for word, about in words)


def _part_words(d: OptionField, key: str, path: str, equals: str, options: Sequence[SourceOption]) -> Iterator[Offer]:
    """The options of a plugin as ``method.q=``; the values of the one that is meant, where it is but one."""
    names = {f"{key}.{o.name}": o for o in options}
    meant = [name for name in names if name == path or (not equals and name.startswith(path))]
    if len(meant) != 1:
        return ((f"{name}=", names[name].help) for name in meant)
    o = names[meant[0]]
    values = [*o.choices] or _literal_values(o.default)
    bare = [] if equals else [(f"{meant[0]}=", o.help)]  # beside a value, so that a shell adds no space behind it
    return iter([*bare, *((f"{meant[0]}={value}", o.help) for value in values)])


def _literal_values(default: str) -> list[str]:
    """The values to offer for an option of which only the default is known."""
    try:
        value = ast.literal_eval(default)
    except (ValueError, SyntaxError):  # an expression, or nothing at all
        return []
    return ["true", "false"] if isinstance(value, bool) else [default_text(value)]


def _options(d: OptionField, name: str) -> list[SourceOption]:
    """The options of a plugin; without a name, those of all plugins of the group."""
    assert d.group
    usage, known = USAGE[d.group], registry.providers(d.group)
    sources = (read_source(entries[0].value) for key, entries in known.items() if not name or key == name)
    found = {o.name: o for source in sources if source for o in source.options}
    return [o for o in found.values() if o.name not in usage.filled]


def _chosen(
    cls: type[Options], d: OptionField, flags: Mapping[str, Any], sets: Sequence[str], preset: str | None
) -> str:
    """The plugin that is named, the last time; else the default; "" where nobody can say yet."""
    given: list[Given] = []
    for source in ({"preset": preset}, {"flags": {d.key: flags.get(d.key)}}, {"sets": list(sets)}):
        with suppress(CmtoolError):  # what is half typed is no mistake yet
            given += gather(cls, **{"flags": {}, "environment": {}, **source})[d.key]
    names = [_name_in(d, item.value) for item in given]
    return next((name for name in reversed(names) if name), d.default_plugin)


def _name_in(d: OptionField, value: Any) -> str:
    with suppress(CmtoolError):
        value = d.parse(value) if d.parse and isinstance(value, str) else value
        value = value.get("name") if isinstance(value, Mapping) else value
    return value if isinstance(value, str) else ""


def join_bash_words(environment: MutableMapping[str, str]) -> str:
    """Undo what bash does to ``--set method.q=4``, of which it makes three words; the part that bash leaves in place.

    That part, ``method.q=``, must be left out of what is offered; it is empty where bash split nothing.
    """
    text = environment.get("COMP_WORDS", "")
    mark = "\n" if "\n" in text else " "
    words = text.split(mark)[: int(environment.get("COMP_CWORD") or 0) + 1]
    joined: list[str] = []
    for i, word in enumerate(words):
        if joined and (word == "=" or words[i - 1] == "="):
            joined[-1] += word
        else:
            joined.append(word)
    environment.update(COMP_WORDS=mark.join(joined), COMP_CWORD=str(len(joined) - 1))
    return joined[-1].rpartition("=")[0] + "=" if "=" in words[-2:] else ""


def without(offered: str, left: str) -> str:
    """The lines offered, without the part of the word that a shell leaves in place; a flag before it is none."""
    parts = [part for part in (left, left.partition("=")[2]) if part]
    return "\n".join(next((line[len(p) :] for p in parts if line.startswith(p)), line) for line in offered.split("\n"))
