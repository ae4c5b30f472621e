"""What ``cmtool info`` says of plugins: a list of each group, and a page of one with its facts, options and an example.

Lists are read from source text and import nothing; a page imports the plugin, whose options are then known for certain.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from typing import Any

from cmtool.options import registry
from cmtool.options.plugin_facts import PluginFacts, parse_facts
from cmtool.options.plugin_option import PluginOption, options_of
from cmtool.options.plugin_source import SourceOption, read_source
from cmtool.plugin_usage import USAGE, example, groups, shown_default

__all__ = ["ListedPlugin", "Plugin", "describe", "list_plugins", "list_text", "option_help", "option_uses", "page_text"]

HARD = "\N{NO-BREAK SPACE}"


@dataclass(frozen=True)
class ListedPlugin:
    """A plugin as far as it is known without importing it."""

    group: str
    name: str
    distribution: str
    version: str
    target: str
    summary: str


@dataclass(frozen=True)
class Plugin:
    """A plugin with all that it says of itself."""

    listed: ListedPlugin
    facts: PluginFacts
    options: tuple[PluginOption, ...]

    @property
    def example(self) -> str:
        """A command that uses it."""
        return example(self.listed.group, self.listed.name, self.options)

    def document(self) -> dict[str, Any]:
        """Plain values for JSON."""
        facts, options = self.facts, [_option_document(self.listed.group, o) for o in self.options]
        about = vars(self.listed) | {"summary": facts.summary, "formula": facts.formula, "paper": facts.paper}
        return about | {"use": facts.use, "text": facts.text, "options": options, "example": self.example}


def _option_document(group: str, o: PluginOption) -> dict[str, Any]:
    about = {"name": o.name, "type": o.type, "required": o.required, "default": None if o.required else o.default}
    about |= {"help": o.help, "limits": o.limits, "choices": list(o.choices)}
    return about | {"flag": USAGE[group].filled.get(o.name)}


def list_plugins(group: str) -> list[ListedPlugin]:
    """Every plugin of a group with its summary; a name that two packages claim is listed twice."""
    entries = registry.providers(group).items()
    return [_list_plugin(group, entry) for _, claims in entries for entry in claims]


def _list_plugin(group: str, entry: EntryPoint) -> ListedPlugin:
    owner, version = (entry.dist.name, entry.dist.version) if entry.dist else ("?", "?")
    source = read_source(entry.value)
    summary = parse_facts(source.docstring).summary if source else ""
    return ListedPlugin(group, entry.name, owner, version, entry.value, summary)


def describe(group: str, name: str) -> Plugin:
    """A plugin with its facts and options; it is imported. UsageError where there is none, or where it is broken."""
    factory = registry.factory(group, name)
    listed = _list_plugin(group, registry.providers(group)[name][0])
    source = read_source(listed.target)
    if not callable(factory):  # a constant, such as a published file
        return Plugin(listed, parse_facts(source and source.docstring), ())
    docstring = source.docstring if source else factory.__doc__
    return Plugin(listed, parse_facts(docstring), tuple(options_of(factory).values()))


def option_uses(word: str) -> list[tuple[ListedPlugin, SourceOption]]:
    """Every plugin that has an option of this name, with what its source says of it; nothing is imported."""
    plugins = [plugin for group in groups() for plugin in list_plugins(group)]
    found = ((plugin, read_source(plugin.target)) for plugin in plugins)
    return [(plugin, o) for plugin, source in found if source for o in source.options if o.name == word]


def list_text(group: str, plugins: Sequence[ListedPlugin], width: int) -> str:
    """A heading, and a line or two for each plugin; the package of those that did not come with cmtool."""
    column = max((len(p.name) for p in plugins), default=0) + 4
    rows = [_hang(f"  {p.name:<{column - 2}}", _summary(p), width) for p in plugins]
    return "\n".join([f"{USAGE[group].title} ({group})", *rows])


def _summary(p: ListedPlugin) -> str:
    """The summary, or the place of a plugin that has none."""
    owner = "" if p.distribution == "cmtool" else f"({p.distribution} {p.version})"
    return " ".join(filter(None, [_plain(p.summary) or p.target, owner]))


def page_text(plugin: Plugin, width: int) -> str:
    """The page of a plugin in ``width`` columns."""
    listed, facts = plugin.listed, plugin.facts
    blocks = [f"{listed.name}: {registry.GROUPS[listed.group]} of {listed.distribution} {listed.version}"]
    blocks += [_hang("", _plain(facts.summary), width)] if facts.summary else []
    facts_said = [("Formula:", facts.formula), ("Paper:", facts.paper), ("Use:", facts.use)]
    lines = [_hang(f"{heading:<9}", _plain(text), width) for heading, text in facts_said if text]
    blocks += ["\n".join(lines)] if lines else []
    blocks += [_hang("", _plain(text), width) for text in facts.text.split("\n\n") if text]
    if plugin.options:
        blocks.append(_options_text(plugin, width))
    return "\n\n".join([*blocks, f"Code: {listed.target}", f"Example:\n  {plugin.example}"])


def _options_text(plugin: Plugin, width: int) -> str:
    group = plugin.listed.group
    rows = [("option", "type", "default", "")]
    rows += [(o.name, o.type, shown_default(group, o), option_help(o)) for o in plugin.options]
    name, kind, default = (max(len(row[i]) for row in rows) for i in range(3))
    lines = [_hang(f"  {a:<{name}}  {b:<{kind}}  {c:<{default}}  ", _plain(d), width) for a, b, c, d in rows]
    usage = USAGE[group]
    how = f", set with {usage.set('OPTION', 'VALUE', plugin.listed.name)}" if usage.key else ""
    return "\n".join([f"Options{how}:", *lines])


def option_help(o: PluginOption) -> str:
    """The help of an option, and what it may be."""
    limits = f"one of {o.limits}" if o.choices else o.limits
    return "; ".join(filter(None, [o.help, limits]))


def _plain(text: str) -> str:
    """Without back-ticks; short code is held together by spaces that no line breaks at."""
    parts = text.split("``")
    return "".join(part.replace(" ", HARD) if i % 2 and len(part) < 40 else part for i, part in enumerate(parts))


def _hang(left: str, right: str, width: int) -> str:
    """``right`` behind ``left``, its further lines below its first."""
    wrapper = textwrap.TextWrapper(
        max(width, len(left) + 20),
        initial_indent=left,
        subsequent_indent=" " * len(left),
        break_on_hyphens=False,
        break_long_words=False,
    )
    return (wrapper.fill(right).replace(HARD, " ") or left).rstrip()
