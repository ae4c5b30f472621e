"""Where a pipeline reports remarks and progress: to the console of a command, or nowhere."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

from cmtool.errors import Advice

__all__ = ["Progress", "Reporter", "Silence"]


class Progress(Protocol):
    """Progress of one task."""

    def update(self, done: int, **figures: Any) -> None:
        """``done`` units in all; figures such as ``loss=0.1``."""
        ...


class Reporter(Protocol):
    """The console of a command is one."""

    def say(self, text: Advice) -> None:
        """A remark that may be missed."""
        ...

    def warn(self, text: Advice) -> None:
        """Something to know."""
        ...

    def progress(self, total: int | None, unit: str, label: str) -> AbstractContextManager[Progress]:
        """Progress towards ``total`` units, None where nobody knows."""
        ...


class Silence:
    """Keeps what a caller of the library may want to read: ``remarks``, warnings and others, in their order."""

    def __init__(self) -> None:
        self.remarks: list[str] = []

    def say(self, text: Advice) -> None:
        self.remarks.append(str(text))

    def warn(self, text: Advice) -> None:
        self.remarks.append(str(text))

    @contextmanager
    def progress(self, total: int | None, unit: str, label: str) -> Iterator[Progress]:
        yield _Unseen()


class _Unseen:
    def update(self, done: int, **figures: Any) -> None:
        pass
