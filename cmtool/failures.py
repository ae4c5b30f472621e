"""How the program ends: every exception becomes one sentence, perhaps a hint, and an exit code."""

import errno
import io
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TextIO

from cmtool.errors import (
    CmtoolError,
    Hint,
    Interrupted,
    MissingInput,
    OutOfMemory,
    Setting,
    WriteFailed,
    is_out_of_memory,
    printable,
)
from cmtool.options.hint_words import word_hint
from cmtool.text_files import dump_json

__all__ = ["exit_code", "run_guarded"]

CLOSED_PIPE = 141
ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG}


def run_guarded(work: Callable[[], None], argv: Sequence[str]) -> int:
    """Run ``work`` and return the exit code; ``--json`` and ``--debug`` are looked up in ``argv``."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a file name may hold what the locale cannot say
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        work()
        if sys.stdout:
            sys.stdout.flush()
        return 0
    except SystemExit as request:  # completion leaves this way
        return request.code if isinstance(request.code, int) else 0
    except BaseException as error:
        _settle(sys.stdout)
        if isinstance(error, BrokenPipeError):
            return CLOSED_PIPE
        return _report(error, argv)


def exit_code(error: BaseException) -> int:
    """The code by which an exception would end the program."""
    return _explain(error).code


def _explain(error: BaseException) -> CmtoolError:
    """The sentence for any exception; the classes of torch are known by name, so that torch need not be there."""
    if isinstance(error, CmtoolError):
        return error
    if isinstance(error, KeyboardInterrupt):
        return Interrupted("interrupted")
    if is_out_of_memory(error):
        return OutOfMemory("there is not enough memory", Hint("a smaller {} needs less", Setting("batch")))
    if isinstance(error, OSError):
        return _explain_os(error)
    text = " ".join(str(error).split())[:200]
    return CmtoolError(f"internal error: {type(error).__name__}: {text}", "run it again with --debug and report it")


def _explain_os(error: OSError) -> CmtoolError:
    name = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
    reason = (error.strerror or str(error) or type(error).__name__).lower()
    unreadable = bool(name) and os.path.isfile(error.filename) and not os.access(error.filename, os.R_OK)
    if error.errno in ABSENT or unreadable:
        return MissingInput(f"{name}{reason}")
    return WriteFailed(f"{name}{reason}")


def _report(error: BaseException, argv: Sequence[str]) -> int:
    failure = _explain(error)
    hint = word_hint(failure.hint) if failure.hint else None
    hints = [f"  hint: {printable(hint)}"] if hint else []
    message = word_hint(failure.sentence)
    lines = [f"cmtool: error: {printable(message)}", *hints]
    if "--json" in argv:
        document = {"code": failure.code, "message": message, "hint": hint}
        lines.append(dump_json({"error": document}))
    if "--debug" in argv or os.environ.get("CMTOOL_DEBUG"):
        import traceback

        trace = "".join(traceback.format_exception(error)).rstrip()
        lines = [*map(printable, trace.split("\n")), *lines]
    if sys.stderr:
        with suppress(OSError):
            print("\n".join(lines), file=sys.stderr, flush=True)
        _settle(sys.stderr)
    return failure.code


def _settle(stream: TextIO | None) -> None:
    """Write out what waits in the buffer, or send it to nowhere: Python would complain about it at exit."""
    if stream is None:
        return
    try:
        stream.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
