"""The first and the last second of the program, when nothing is made yet and nothing is left to make.

A Ctrl-C that lands in an import may be swallowed there, or come out as a traceback; while nothing can be lost the
process ends at once instead.
"""

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType

__all__ = ["end_process", "mark_started", "start_process"]

STREAMS = (0, 1, 2)
Handler = Callable[[int, FrameType | None], None]


def start_process() -> None:
    """Until ``mark_started``, Ctrl-C ends the process with one line and the code 130; a shell that has it ignored is
    heeded.

    Standard streams that are closed become ``/dev/null``, or the first file to be opened would take their number, and
    what is meant for them.
    """
    for number in STREAMS:
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)


def mark_started() -> None:
    """From here on Ctrl-C is an exception, so that what was made is kept."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def end_process(code: int) -> None:
    """The work is over: Ctrl-C can but cut the clearing up short, and does not change the code."""
    if signal.getsignal(signal.SIGINT) in (_leave, signal.default_int_handler):
        signal.signal(signal.SIGINT, lambda number, frame: os._exit(code))


def _leave(number: int, frame: FrameType | None) -> None:
    lines = b"cmtool: error: interrupted\n"
    if "--json" in sys.argv:
        lines += b'{"error": {"code": 130, "message": "interrupted", "hint": null}}\n'
    try:
        os.write(2, lines)
    finally:
        os._exit(130)
