"""``info``: plugins, presets, a checkpoint by its header, or images; lists and headers need no torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cmtool import help_pages, plugin_pages, plugin_usage, presets
from cmtool.bundled import NAMES, find_bundled
from cmtool.commands.console import Console
from cmtool.commands.information.checkpoints import advice, average_table, averages, summarize
from cmtool.commands.information.presets import preset_facts, preset_table
from cmtool.data_paths import has_suffix, is_list
from cmtool.errors import MissingInput, closest, printable
from cmtool.files.header import Header
from cmtool.options import registry
from cmtool.options.data_spec import data_spec
from cmtool.options.plugin_source import SourceOption
from cmtool.options.yaml_files import write_yaml
from cmtool.plugin_pages import ListedPlugin
from cmtool.settings import InfoOptions
from cmtool.user_paths import expand_home

__all__ = ["run"]

CHECKPOINT, CONFIG = "model.safetensors", "config.yaml"  # of a run
WEIGHTS = (".safetensors", ".pt", ".pth", ".pkl", ".ckpt", ".bin", ".msgpack")
LISTS = ("plugins", "presets", "methods")


def run(options: InfoOptions, console: Console) -> None:
    """Print what was asked for: lists, then checkpoints and images that are there, then names of plugins and options.

    The name of a data set wins over a file or folder that is no checkpoint, as everywhere.
    """
    word = options.what
    if word == "plugins":
        _groups(plugin_usage.groups(), console)
    elif word == "presets":
        found = {name: preset_facts(name) for name in presets.names()}
        console.result({"presets": found}, preset_table(found))
    elif word in NAMES or (Path(word).exists() and _is_checkpoint(Path(word))):
        _checkpoint(options, console)
    elif spec := _images(word):
        from cmtool.commands.information.data import describe_data  # which needs torch

        describe_data(spec, options, console)
    elif word in presets.names():
        found = {word: preset_facts(word)}
        console.result({"presets": found}, f"{preset_table(found)}\n\n{presets.read(word).rstrip()}")
    elif groups := plugin_usage.groups_called(word):
        _groups(groups, console)
    elif groups := plugin_usage.groups_with(word):
        _pages(word, groups, console)
    elif (uses := plugin_pages.option_uses(word)) and f"{word}s" not in registry.GROUPS:
        _option(word, uses, console)
    else:
        raise _unknown_error(word)


def _is_checkpoint(path: Path) -> bool:
    """Whether it is a checkpoint or a run, or is called like one, so that its reader says what is wrong with it."""
    from cmtool.files.container import holds
    from cmtool.files.header import KEY

    if path.suffix.lower() in WEIGHTS or (path / CHECKPOINT).exists() or (path / CONFIG).exists() or holds(path, KEY):
        return True
    from cmtool.files.model_files import format_of  # which needs torch

    return format_of(path) is not None


def _images(word: str) -> Mapping[str, Any] | None:
    """What ``--data`` takes a word for; not the bare name of a data set, whose page is shown, nor a path to nothing.

    Unless that path ends as data do, so that their reader says what is there instead.
    """
    spec = data_spec(word)
    source = expand_home(spec["source"] or "")
    if spec["name"] not in registry.names("datasets") or not (source or spec["slice"]):
        return None
    missing = spec["name"] == "folder" and not (Path(source).exists() or is_list(source) or has_suffix(source))
    return None if missing else spec


def _groups(groups: list[str], console: Console) -> None:
    listed = {group: plugin_pages.list_plugins(group) for group in groups}
    width = help_pages.page_width()
    blocks = [plugin_pages.list_text(group, found, width) for group, found in listed.items()]
    blocks.append("cmtool info NAME shows the formula, paper, options and an example of one")
    console.result({"plugins": [vars(p) for found in listed.values() for p in found]}, "\n\n".join(blocks))


def _pages(name: str, groups: list[str], console: Console) -> None:
    found = [plugin_pages.describe(group, name) for group in groups]
    width = help_pages.page_width()
    text = f"\n\n{'-' * min(width, 72)}\n\n".join(plugin_pages.page_text(plugin, width) for plugin in found)
    console.result({"plugins": [plugin.document() for plugin in found]}, text)


def _option(word: str, uses: list[tuple[ListedPlugin, SourceOption]], console: Console) -> None:
    rows = [(f"{p.group} {p.name}", o.default or "needed", o.help) for p, o in uses]
    place, default = (max(len(row[i]) for row in rows) for i in range(2))
    lines = [f"  {a:<{place}}  {b:<{default}}  {c}".rstrip() for a, b, c in rows]
    document = [{"group": p.group, "plugin": p.name, "default": o.default, "help": o.help} for p, o in uses]
    ask = "cmtool info NAME shows all options of one"
    console.result({"option": word, "of": document}, "\n".join([f"{word} is an option of", *lines, "", ask]))


def _checkpoint(options: InfoOptions, console: Console) -> None:
    path = find_bundled(Path(options.what))
    header = _header(path, options)
    command = advice(options.what, header, {"format": options.format, "backbone": options.backbone})
    about = header.document()
    kept = averages(path) if (path / CHECKPOINT).exists() else []
    document = {"path": options.what, "header": about, "sample": command} | ({"averages": kept} if kept else {})
    body = "\n".join(map(printable, write_yaml(about, unicode=True).rstrip().split("\n")))
    console.result(document, f"{summarize(header, command)}\n{body}{average_table(kept)}")


def _unknown_error(word: str) -> MissingInput:
    """There is no such file; the nearest of all that could have been meant."""
    folder = Path(word).parent
    beside = [str(other) for other in folder.iterdir()] if folder.is_dir() else []
    plugins = (name for group in registry.GROUPS for name in registry.names(group))
    near = closest(Path(word), (*LISTS, *NAMES, *beside, *registry.GROUPS, *presets.names(), *plugins))
    lists = "plugins, presets, a group such as solvers, the name of one of them, a checkpoint, a run or images"
    hint = f"did you mean '{near}'?" if near else f"cmtool info takes {lists}"
    return MissingInput(f"there is no file {Path(word)}", hint)


def _header(path: Path, options: InfoOptions) -> Header:
    from cmtool.files.container import holds
    from cmtool.files.header import KEY, read_header

    inside = path / CHECKPOINT
    path = inside if inside.exists() else path
    if holds(path, KEY):
        return read_header(path, whole=True)
    from cmtool.files.model_files import open_any
    from cmtool.pipelines.inputs import checkpoint_path  # which needs torch

    return open_any(checkpoint_path(path), format=options.format, backbone=options.backbone).header
