"""A signal asks a long command to stop at its next safe point."""

import signal
import time
from collections.abc import Sequence
from types import FrameType, TracebackType

from cmtool.pipelines.launcher import find_world

__all__ = ["STOP_SIGNALS", "Stop"]

NAMES = ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGBREAK")  # Windows has the first and the last of them
STOP_SIGNALS = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]
TWICE = 1.0  # seconds in which a launcher's copy of a Ctrl-C arrives


class Stop:
    """``with Stop() as stop:`` and look at ``stop.asked``: the signal that came first, or None.

    SIGINT is the user; SIGTERM, SIGUSR1 and SIGUSR2 are a scheduler that will start the command again, SIGHUP a
    connection and SIGBREAK a window that was closed. A second SIGINT does not wait for the safe point. Whatever else
    comes twice is one request: Slurm signals the ranks and torchrun, which passes it on to them; so under a launcher
    a SIGINT within a second of another is the same one. ``signals`` are those that are caught.
    """

    def __init__(self, signals: Sequence[int] = (signal.SIGINT, *STOP_SIGNALS)) -> None:
        self.signals = signals
        self.asked: int | None = None
        self._interrupted: float | None = None
        self._pause = TWICE if find_world().launcher != "single" else 0.0
        self._before: dict[int, object] = {}

    def __enter__(self) -> "Stop":
        for which in self.signals:
            if which != signal.SIGINT and signal.getsignal(which) == signal.SIG_IGN:  # nohup
                continue
            self._before[which] = signal.signal(which, self._handle)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for which, handler in self._before.items():
            signal.signal(which, handler)  # type: ignore[arg-type]

    def _handle(self, which: int, frame: FrameType | None) -> None:
        self.asked = self.asked or which
        if which == signal.SIGINT:
            now = time.monotonic()
            if self._interrupted is not None and now - self._interrupted >= self._pause:
                raise KeyboardInterrupt
            self._interrupted = now

    @property
    def preempted(self) -> bool:
        """Whether it was a scheduler."""
        return self.asked in STOP_SIGNALS
