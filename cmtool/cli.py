"""The command line: the only file that knows Typer, and the only place where errors become words and exit codes.

Typer functions are made from the options classes and do nothing but hand back what was typed; ``options.load`` checks
it, and only then is the command's module imported.
"""

import inspect
import io
import os
import re
import shlex
from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from cmtool import __version__, completion, failures, help_pages, presets, startup
from cmtool.catalogue import BATCH_FILE, COMMANDS
from cmtool.commands.console import Console
from cmtool.errors import MissingInput, UsageError, closest, unknown_name
from cmtool.help_pages import Command
from cmtool.options.fields import OptionField, Options, long_flag, option_fields
from cmtool.options.load import dump_options, gather, resolve
from cmtool.options.sources import name_sources, normal
from cmtool.options.stored_run import stored_options
from cmtool.settings import InfoOptions
from cmtool.user_paths import config_folder

__all__ = ["COMMANDS", "reference", "run"]

INTERRUPTED = 130


@dataclass(frozen=True)
class Call:
    """What was typed: a command, its flags by key and the flags all commands have, not checked yet."""

    command: str
    flags: dict[str, Any]
    shared: dict[str, Any]


def reference() -> str:
    """The text of ``docs/commands.md``."""
    return help_pages.markdown(COMMANDS)


def run(argv: Sequence[str]) -> int:
    """Do what the arguments say; the exit code."""
    return failures.run_guarded(lambda: _run(list(argv)), argv)


def _run(argv: list[str]) -> None:
    if os.environ.get("_CMTOOL_COMPLETE") == "complete_bash":
        _complete_in_bash(argv)
        return
    if argv and not argv[0].startswith("-") and argv[0] not in COMMANDS:
        raise unknown_name("command", argv[0], COMMANDS)
    argv = _with_empty_job(argv)
    typed = _parse(argv)
    if isinstance(typed, Call):
        _execute(typed, argv)
    elif isinstance(typed, int) and typed:  # Typer took an interrupt for an exit, and tells its code
        raise KeyboardInterrupt if typed == INTERRUPTED else SystemExit(typed)


def _with_empty_job(argv: list[str]) -> list[str]:
    """``--print-sbatch`` may stand alone, which the parser cannot know."""
    if "--print-sbatch" in argv:
        place = argv.index("--print-sbatch") + 1
        if not re.match(r"[a-z]+=", (argv[place:] or [""])[0]):
            return [*argv[:place], "", *argv[place:]]
    return argv


def _complete_in_bash(argv: list[str]) -> None:
    """What Typer offers, for a shell that takes ``method.q=4`` for three words."""
    left = completion.join_bash_words(os.environ)
    with redirect_stdout(io.StringIO()) as offered, suppress(SystemExit):  # which is how Typer leaves
        _parse(argv)
    print(completion.without(offered.getvalue(), left), end="")


def _execute(call: Call, argv: Sequence[str]) -> None:
    command, shared = COMMANDS[call.command], call.shared
    sets, configs = shared["sets"] or (), shared["configs"] or ()
    typed = gather(command.options, call.flags, sets, configs, shared["preset"])
    user = gather(command.options, {}, environment={}, user=_user_file())
    stored = stored_options(command.options, typed)  # of the run that goes on
    given = {key: [*user[key], *stored.get(key, ()), *typed[key]] for key in typed}
    with name_sources(command.options, given):
        _do(call, resolve(command.options, given), argv)


def _do(call: Call, options: Options, argv: Sequence[str]) -> None:
    command, shared = COMMANDS[call.command], call.shared
    if shared["print_config"]:
        print(dump_options(options), end="")
        return
    console = Console(call.command, json=bool(shared["json"]), quiet=bool(shared["quiet"]))
    if (job := shared.get("print_sbatch")) is not None:
        _target(BATCH_FILE)(argv, options, job, console)
        return
    _look_around()
    work = _target(command.target)
    startup.mark_started()
    work(options, console)


def _target(name: str) -> Callable[..., None]:
    """The function of ``module:function``."""
    module, _, function = name.partition(":")
    return getattr(import_module(module), function)


def _look_around() -> None:
    """MissingInput where the working folder is gone: libraries below torch would end the process over it."""
    try:
        os.getcwd()
    except FileNotFoundError:
        raise MissingInput("the folder this was called from is gone", "cd to one that is there") from None


def _user_file() -> Path | None:
    folder = config_folder()
    path = folder and folder / "config.yaml"
    return path if path and os.path.isfile(path) else None


def _parse(argv: list[str]) -> Any:
    """A Call, or something else when a page was printed instead."""
    try:
        return _app()(argv, prog_name="cmtool", standalone_mode=False)
    except _Page as page:
        print(
            _bold_headings(page.text) if help_pages.is_terminal() and not os.environ.get("NO_COLOR") else page.text,
            end="",
        )
    except Exception as error:
        if not hasattr(error, "format_message"):  # Typer's own; the oldest we support has no public name for them
            raise
        raise _usage(error, argv[0] if argv and argv[0] in COMMANDS else None) from error


def _usage(error: Any, name: str | None) -> UsageError:
    """What Typer has to complain about, in our words."""
    page = f"cmtool {name} --help" if name else "cmtool --help"
    flag = getattr(error, "option_name", None)
    if flag and flag not in _flags(name):
        near = closest(flag, _flags(name))
        return UsageError(f"unknown option '{flag}'", f"did you mean '{near}'?" if near else page)
    message = error.format_message().rstrip(".")
    extra = re.search(r"unexpected extra argument(?:\(s\)|s)? \((.+)\)", message)
    hint = _suggest_flag(extra[1], name) if extra and name else None
    return UsageError(message[:1].lower() + message[1:], hint or page)


def _suggest_flag(extra: str, name: str) -> str | None:
    """How arguments are written that other programs take without a flag: ``steps=2``, or a second side of FID."""
    key, equals, value = extra.split()[0].partition("=")
    declared = option_fields(COMMANDS[name].options)
    d = declared.get(normal(key))
    if equals and d and not d.yaml_only:
        return f"options are written with a flag: {d.long} {shlex.quote(value)}"
    if not equals and "ref" in declared:
        return f"the images to compare with are named by a flag: --ref {shlex.quote(extra)}"
    return None


def _bold_headings(page: str) -> str:
    """Headings stand out."""
    return re.sub(r"^(\w.*:)$", "\033[1m\\1\033[0m", page, flags=re.MULTILINE)


class _Page(Exception):
    """Leaves the parser with a page to print; printing inside it would hide a closed pipe."""

    def __init__(self, text: str):
        self.text = text


def _page(make: Callable[[], str]) -> Callable[[bool], None]:
    def callback(wanted: bool) -> None:
        if wanted:
            raise _Page(make())

    return callback


def _app() -> typer.Typer:
    app = typer.Typer(add_help_option=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    show_root = _page(lambda: help_pages.root_page(COMMANDS, help_pages.page_width()))
    show_version = _page(lambda: f"cmtool {__version__}\n")

    @app.callback(invoke_without_command=True)
    def root(
        context: typer.Context,
        version: Annotated[bool, typer.Option("--version", is_eager=True, callback=show_version)] = False,
        help: Annotated[bool, typer.Option("--help", "-h", is_eager=True, callback=show_root)] = False,
    ) -> None:
        if context.invoked_subcommand is None:
            show_root(True)

    for name, command in COMMANDS.items():
        app.command(name, help=command.summary, add_help_option=False)(_function(name, command))
    return app


def _function(name: str, command: Command) -> Callable[..., Call]:
    declared = [d for d in option_fields(command.options).values() if not d.yaml_only]
    show = _page(lambda: help_pages.command_page(name, command, help_pages.page_width()))

    def read_flags(**given: Any) -> Call:
        flags = {d.key: given.pop(d.name) for d in declared}
        refused = {key: given.pop(key) for key in command.options.refused}
        return Call(name, flags | refused, given)

    parameters = [
        *(_parameter(d.name, *_flag_type(command, d)) for d in declared),
        *(_parameter(key, str, typer.Option(long_flag(key), hidden=True)) for key in command.options.refused),
        *(_parameter(key, *about) for key, about in _shared_flags(command).items()),
        _parameter("help", bool, typer.Option("--help", "-h", is_eager=True, expose_value=False, callback=show)),
    ]
    read_flags.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return read_flags


def _parameter(name: str, kind: Any, info: Any) -> inspect.Parameter:
    annotation = Annotated[kind | None, info]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _flag_type(command: Command, d: OptionField) -> tuple[Any, Any]:
    def complete(incomplete: str) -> Iterable[completion.Offer]:
        if command.options is InfoOptions and d.positional:
            return completion.complete_info(incomplete)
        return completion.complete_value(d, incomplete)

    if d.switch:
        return bool, typer.Option(f"{d.long}/--no-{d.long[2:]}", help=d.help)
    if d.positional:
        return str, typer.Argument(help=d.help, metavar=d.metavar, autocompletion=complete)
    flags = [flag for flag in (d.flag, d.long) if flag]
    return str, typer.Option(*flags, help=d.help, metavar=d.metavar, autocompletion=complete)


def _shared_flags(command: Command) -> dict[str, tuple[Any, Any]]:
    def complete_set(context: typer.Context, incomplete: str) -> Iterable[completion.Offer]:
        given = context.params
        flags = {d.key: given.get(d.name) for d in option_fields(command.options).values()}
        return completion.complete_set(command.options, incomplete, flags, given.get("sets") or (), given.get("preset"))

    return {
        "configs": (list[str], typer.Option("--config", "-c")),
        "sets": (list[str], typer.Option("--set", autocompletion=complete_set)),
        "preset": (str, typer.Option("--preset", autocompletion=_presets)),
        "print_config": (bool, typer.Option("--print-config")),
        "json": (bool, typer.Option("--json")),
        "quiet": (bool, typer.Option("--quiet", "-q")),
        "debug": (bool, typer.Option("--debug")),
        **({"print_sbatch": (str, typer.Option("--print-sbatch"))} if command.batch else {}),
    }


def _presets(incomplete: str) -> list[str]:
    return [name for name in presets.names() if name.startswith(incomplete)]


def _flags(name: str | None) -> list[str]:
    """Every long and short flag of a command, for did-you-mean."""
    batch = help_pages.BATCH if name and COMMANDS[name].batch else ()
    shared = [word for left, _ in (*batch, *(help_pages.SHARED if name else help_pages.ROOT)) for word in _words(left)]
    declared = option_fields(COMMANDS[name].options).values() if name else []
    return shared + [flag for d in declared if not d.positional for flag in (d.long, d.flag) if flag]


def _words(left: str) -> list[str]:
    return [word for word in left.replace(",", "").split() if word.startswith("-")]
