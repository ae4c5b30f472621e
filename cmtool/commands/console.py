"""What a command says: results on standard output, everything for people on standard error."""

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, TextIO

from cmtool.errors import Advice, printable
from cmtool.options.hint_words import word_hint
from cmtool.text_files import dump_json

__all__ = ["Console", "ProgressBar"]

SECONDS, SHARE = 30.0, 0.01  # off a terminal a line has to wait for both
REFRESH = 0.1

Clock = Callable[[], float]
Show = Callable[[str], None]


class Console:
    """The voice of one command; no text of a file commands the terminal through it, whatever the command hands on."""

    def __init__(self, command: str, *, json: bool = False, quiet: bool = False, clock: Clock = time.monotonic):
        self.command, self.json, self.quiet, self.clock = command, json, quiet, clock

    def say(self, text: Advice) -> None:
        """A remark on standard error, unless quiet."""
        if not self.quiet:
            _write(sys.stderr, printable(word_hint(text)))

    @property
    def terminal(self) -> bool:
        """Whether somebody looks at standard error, and wants messages."""
        return not self.quiet and _is_terminal(sys.stderr)

    def draw(self, lines: str) -> None:
        """A picture made of characters on standard error, where the encoding has them."""
        if sys.stderr:
            encoding = sys.stderr.encoding or "utf-8"
            _write(sys.stderr, lines.encode(encoding, "replace").decode(encoding))

    def warn(self, text: Advice) -> None:
        """Something to know, quiet or not."""
        _write(sys.stderr, f"cmtool: warning: {printable(word_hint(text))}")

    def result(self, document: Mapping[str, Any], text: str) -> None:
        """The outcome on standard output: one JSON document with --json, otherwise the text, line by line."""
        schema = {"schema": f"cmtool.{self.command}/1"}
        shown = "\n".join(map(printable, text.split("\n")))
        _write(sys.stdout, dump_json(schema | dict(document), default=str) if self.json else shown)

    @contextmanager
    def progress(self, total: int | None, unit: str, label: str) -> Iterator["ProgressBar"]:
        """Progress towards ``total`` units (None where nobody knows): call ``update`` on what this yields."""
        live = self.terminal
        with _live_line() if live else nullcontext(self.say) as show:
            track = ProgressBar(total, unit, label, show, self.clock, (REFRESH, 0.0) if live else (SECONDS, SHARE))
            try:
                yield track
            finally:
                track.finish()


class ProgressBar:
    """Work done so far, shown when ``pause`` = (seconds, share of the total) has passed since it was shown last."""

    def __init__(self, total: int | None, unit: str, label: str, show: Show, clock: Clock, pause: tuple[float, float]):
        self.total, self.unit, self.label, self.show, self.clock = total, unit, label, show, clock
        self.seconds, self.step = pause[0], pause[1] * (total or 0)
        self.start: tuple[float, int] | None = None
        self.done, self.figures, self.shown = 0, {}, (0.0, 0)

    def update(self, done: int, **figures: Any) -> None:
        """``done`` units in all; ``figures`` such as ``loss=0.1`` stay until they are given again."""
        now = self.clock()
        self.done, self.figures = done, self.figures | figures
        if self.start is None:
            self.start = (now, done)
        elif now - self.shown[0] < self.seconds or done - self.shown[1] < self.step:
            return
        self._show(now, final=False)

    def finish(self) -> None:
        """The last line: what was reached, and how long it took."""
        if self.start is not None:
            self._show(self.clock(), final=True)

    def _show(self, now: float, final: bool) -> None:
        self.shown = (now, self.done)
        started, first = self.start or (now, 0)
        rate = (self.done - first) / (now - started) if now > started else 0.0
        amount = f"{self.done:,}/{self.total:,}" if self.total else f"{self.done:,}"
        parts = [self.label, f"{amount} {self.unit}"]
        parts += [f"{name} {_figure(value)}" for name, value in self.figures.items()]
        parts += [f"{_figure(rate)} {self.unit}/s"] if rate else []
        if final:
            parts.append(f"in {_duration(now - started)}")
        elif self.total and rate:
            parts.append(f"eta {_duration((self.total - self.done) / rate)}")
        self.show(printable("  ".join(parts)))


@contextmanager
def _live_line() -> Iterator[Show]:
    """One line that is written over; rich is imported only here."""
    from rich.console import Console as Terminal
    from rich.live import Live
    from rich.text import Text

    with Live(console=Terminal(stderr=True), auto_refresh=False, redirect_stdout=False) as live:
        yield lambda text: live.update(Text(text, no_wrap=True, overflow="ellipsis"), refresh=True)


def _write(stream: TextIO | None, text: str) -> None:
    if stream:  # print(file=None) would write to standard output
        print(text, file=stream, flush=True)


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"


def _figure(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e15 else f"{value:.4g}"


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
