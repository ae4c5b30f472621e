"""The pages ``docs/methods.md`` and ``docs/methods/``: every plugin of ours, from what it says of itself.

python -c "from cmtool.plugin_reference import write_pages; write_pages('docs')"
"""

from collections.abc import Mapping
from pathlib import Path

from cmtool.plugin_pages import Plugin, describe, list_plugins, option_help
from cmtool.plugin_usage import USAGE, groups, shown_default

__all__ = ["missing_facts", "pages", "write_pages"]

HEAD = "Written by `cmtool.plugin_reference.write_pages('docs')` from the docstrings and signatures of the plugins."


def pages() -> Mapping[str, str]:
    """The text of each page by its path in ``docs``."""
    plugins = {group: _ours(group) for group in groups()}
    found = {f"methods/{group}.md": _group_page(group, ours) for group, ours in plugins.items()}
    return {"methods.md": _index(plugins), **found}


def write_pages(docs: str | Path) -> None:
    """Write every page below the folder ``docs``."""
    (Path(docs) / "methods").mkdir(exist_ok=True)
    for name, text in pages().items():
        (Path(docs) / name).write_text(text, "utf-8")


def missing_facts(group: str) -> list[str]:
    """What the plugins of a group that come with cmtool do not say: ``heun: Use``, ``heun: help of churn``."""
    found = []
    for plugin in _ours(group):
        said = {"summary": plugin.facts.summary, "Use": plugin.facts.use}
        said |= {f"help of {o.name}": o.help for o in plugin.options}
        found += [f"{plugin.listed.name}: {what}" for what, text in said.items() if not text]
    return found


def _ours(group: str) -> list[Plugin]:
    return [describe(group, p.name) for p in list_plugins(group) if p.distribution == "cmtool"]


def _index(plugins: Mapping[str, list[Plugin]]) -> str:
    lines = [
        "# Methods and all other plugins",
        HEAD,
        "Everything that has a name on the command line, with a page for each group: formula, paper, options and when\n"
        "to take it. `cmtool info NAME` prints the same, of plugins of other packages too;\n"
        "[extending.md](extending.md) says how to write one.",
    ]
    for group, ours in plugins.items():
        lines.append(f"## [{USAGE[group].title}](methods/{group}.md)")
        rows = [f"| [`{p.listed.name}`](methods/{group}.md#{p.listed.name}) | {_cell(p.facts.summary)} |" for p in ours]
        lines.append("\n".join(["| name | what it is |", "|---|---|", *rows]))
    return "\n\n".join(lines) + "\n"


def _group_page(group: str, ours: list[Plugin]) -> str:
    return "\n\n".join([f"# {USAGE[group].title}", HEAD, *map(_section, ours)]) + "\n"


def _section(plugin: Plugin) -> str:
    facts = plugin.facts
    blocks = [f"## `{plugin.listed.name}`", facts.summary]
    blocks += [f"**{word}.** {text}" for word, text in (("Formula", facts.formula), ("Paper", facts.paper)) if text]
    blocks += [f"**When to take it.** {facts.use}"] if facts.use else []
    blocks += [facts.text, _options_table(plugin), f"Example: ``{plugin.example}``"]
    return "\n\n".join(block.replace("``", "`") for block in blocks if block)


def _options_table(plugin: Plugin) -> str:
    if not plugin.options:
        return ""
    group = plugin.listed.group
    rows = [
        f"| `{o.name}` | {_cell(o.type)} | `{shown_default(group, o)}` | {_cell(option_help(o))} |"
        for o in plugin.options
    ]
    return "\n".join(["| option | type | default | what it is |", "|---|---|---|---|", *rows])


def _cell(text: str) -> str:
    return text.replace("``", "`").replace("|", "\\|")
