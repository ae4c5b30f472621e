"""The pages that ``--help`` prints and ``docs/commands.md`` collects, written from the declarations."""

import os
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass

from cmtool import __version__, errors
from cmtool.options import registry
from cmtool.options.fields import OptionField, Options, option_fields
from cmtool.options.types import Spec
from cmtool.plugin_usage import USAGE

__all__ = ["Command", "command_page", "exit_codes", "is_terminal", "markdown", "page_width", "root_page"]

WIDTH, COLUMN = 100, 28
SECTIONS = (
    "Input",
    "Task",
    "Data",
    "Network",
    "Training",
    "Sampling",
    "Guidance",
    "Search",
    "Output",
    "Run",
    "Evaluation",
    "Machine",
)

PRECEDENCE = (
    "From weak to strong: defaults, your own ~/.config/cmtool/config.yaml, --preset, --config, variables such as "
    "$CMTOOL_DEVICE, --set, flags."
)
Rows = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Command:
    """A command: its options, where it lives (``module:function``), one sentence, lines to try, and advice.

    ``batch`` says whether it can print a batch file that runs it.
    """

    options: type[Options]
    target: str
    summary: str
    examples: Rows
    advice: Rows = ()
    batch: bool = False


SHARED = (
    ("-c, --config FILE", "options from a YAML file; may be repeated, the last wins"),
    ("--set KEY=VALUE", "one option by its YAML key, such as backbone.model_channels=64; may be repeated"),
    ("--preset NAME", "a recipe that ships with the program; cmtool info presets lists them"),
    ("--print-config", "print the resolved options as YAML and stop"),
    ("--json", "one JSON document on standard output, errors as JSON on standard error"),
    ("-q, --quiet", "no progress and no remarks"),
    ("--debug", "show the traceback of an internal error"),
    ("-h, --help", "print this page"),
)
BATCH = (
    (
        "--print-sbatch [JOB]",
        "print a batch file for Slurm that runs this command, and stop; JOB such as nodes=2,gpus=4,time=24:00:00 "
        "asks for nodes, gpus and processes of each, cpus of a process, memory, time, partition, account, qos; "
        "array=N shares the images of sample among N jobs",
    ),
)
START = (
    ("cmtool train-ct", "train a one-step generator on procedural shapes, minutes on two cores"),
    ("cmtool sample -n 64 --grid grid.png", "draw images from it"),
    ("cmtool fid samples --ref 'shapes[:2000]' --features small", "measure them"),
)
ROOT = (
    ("--version", "print the version"),
    ("--install-completion", "complete commands, options and names in this shell"),
    ("--show-completion", "print the completion script"),
    ("-h, --help", "print this page"),
)


def root_page(commands: Mapping[str, Command], width: int = WIDTH) -> str:
    """The page of ``cmtool --help``."""
    parts = {
        "Usage": [("cmtool COMMAND [OPTIONS]", "")],
        "Examples": START,
        "Commands": [(name, command.summary) for name, command in commands.items()],
        "Options": ROOT,
    }
    title = f"cmtool {__version__}: from images to a one-step generator."
    return _page(title, parts, "cmtool COMMAND --help lists the options of a command.", width)


def command_page(name: str, command: Command, width: int = WIDTH) -> str:
    """The page of ``cmtool NAME --help``."""
    declared = list(option_fields(command.options).values())
    positional = [d for d in declared if d.positional]
    flags = [d for d in declared if not d.positional and not d.yaml_only]
    parts: dict[str, Rows] = {
        "Usage": [(" ".join(["cmtool", name, *(_argument(d) for d in positional), "[OPTIONS]"]), "")],
        "Examples": command.examples,
        "Arguments": [(d.metavar or d.key, _describe(d)) for d in positional],
    }
    for section in sorted({d.section for d in flags}, key=SECTIONS.index):
        parts[section] = [(_flag(d), _describe(d)) for d in flags if d.section == section]
    parts["Only in YAML and --set"] = [(d.key, _describe(d)) for d in declared if d.yaml_only]
    parts["Options of plugins"] = [row for d in declared if d.group for row in _plugin_row(d)]
    parts["Which solver"] = command.advice
    parts["On a cluster"] = BATCH if command.batch else ()
    parts["For every command"] = SHARED
    return _page(f"{command.summary}.", parts, PRECEDENCE, width)


def markdown(commands: Mapping[str, Command]) -> str:
    """All pages and the exit codes as one Markdown document."""
    pages = [("cmtool", root_page(commands)), *((f"cmtool {n}", command_page(n, c)) for n, c in commands.items())]
    blocks = [f"## {title}\n\n```text\n{page}```\n" for title, page in pages]
    head = "# Commands\n\nWritten by `cmtool.cli.reference()` from the declarations in `cmtool/settings/`.\n"
    rows = [f"| {code} | {meaning} |" for code, meaning in exit_codes()]
    table = "\n".join(["## Exit codes\n", "| code | meaning |", "|---:|---|", *rows])
    return "\n".join([head, *blocks, table]) + "\n"


def exit_codes() -> list[tuple[int, str]]:
    """Every exit code with its meaning, from the tree drawn in ``cmtool.errors``, where it has one of its own."""
    drawn = [line.split(maxsplit=3) for line in (errors.__doc__ or "").splitlines() if "──" in line]
    found = [(int(code), meaning) for _, _, code, meaning in drawn if code.isdecimal()]
    ours = [(0, "done"), (1, "a fault of ours; --debug shows where"), (141, "whoever read our output has left")]
    return sorted(ours + found)


def is_terminal() -> bool:
    """Whether standard output is a terminal that can do more than print."""
    return sys.stdout is not None and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def page_width() -> int:
    """The columns of a page: those of the terminal within bounds, or as in the documents where it goes elsewhere."""
    return min(WIDTH, max(60, shutil.get_terminal_size().columns)) if is_terminal() else WIDTH


def _page(title: str, parts: Mapping[str, Rows], end: str, width: int) -> str:
    blocks = ["\n".join([f"{name}:", *(_row(*row, width) for row in rows)]) for name, rows in parts.items() if rows]
    return "\n\n".join([title, *blocks, textwrap.fill(end, width)]) + "\n"


def _row(left: str, right: str, width: int) -> str:
    """``left`` in its column and ``right`` wrapped in its own, one line lower where ``left`` is too long."""
    margin = " " * COLUMN
    lines = textwrap.wrap(right, width, initial_indent=margin, subsequent_indent=margin, break_on_hyphens=False)
    if len(left) < COLUMN - 3 and lines:
        lines[0] = f"  {left:<{COLUMN - 2}}{lines[0].lstrip()}"
        return "\n".join(lines)
    return "\n".join([f"  {left}", *lines])


def _argument(d: OptionField) -> str:
    name = d.metavar or d.key.upper()
    return name if d.required else f"[{name}]"


def _plugin_row(d: OptionField) -> Rows:
    """Where the options of the plugins are found that an option names."""
    shown = USAGE[d.group].shown if d.group in USAGE else None
    if shown is None:
        return ()
    name, option, value = shown
    return ((f"of {d.long}", f"cmtool info {name}; set with --set {d.key}.{option}={value}"),)


def _flag(d: OptionField) -> str:
    if d.switch:
        return d.long if d.default is False else f"{d.long}, --no-{d.long[2:]}"
    names = f"{d.flag}, {d.long}" if d.flag else d.long
    return f"{names} {d.placeholder}"


def _describe(d: OptionField) -> str:
    default = d.shown or d.default_name or _show_default(d.default)
    words = f"{d.help}; one of {', '.join(registry.names(d.group))}" if d.listed and d.group else d.help
    return f"{words} [{default}]" if default else words


def _show_default(default: object) -> str:
    if default is MISSING:
        return "required"
    if isinstance(default, Spec):
        options = ", ".join(f"{k}={v}" for k, v in default.items() if k != "name")
        return f"{default.name} {options}".strip()
    if isinstance(default, bool | None):
        return "on" if default else ""
    return f"{default:g}" if isinstance(default, float) else str(default)
