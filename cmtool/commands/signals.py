"""A signal asks a long command to stop at its next safe point."""

import signal
from collections.abc import Sequence
from types import FrameType, TracebackType

__all__ = ["STOP_SIGNALS", "Stop"]

STOP_SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2") if hasattr(signal, name)]


class Stop:
    """``with Stop() as stop:`` and look at ``stop.asked``: the signal that came, or None.

    SIGINT is the user; SIGTERM, SIGUSR1 and SIGUSR2 are a scheduler that will start the command again, SIGHUP a
    connection that was lost. A second SIGINT does not wait for the safe point. ``signals`` are those that are caught.
    """

    def __init__(self, signals: Sequence[int] = (signal.SIGINT, *STOP_SIGNALS)) -> None:
        self.signals = signals
        self.asked: int | None = None
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
        if self.asked == signal.SIGINT and which == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = which

    @property
    def preempted(self) -> bool:
        """Whether it was a scheduler."""
        return self.asked in STOP_SIGNALS
