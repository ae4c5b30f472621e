"""What a forked process may not take over: handles of libraries, and locks that another thread held."""

import os
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["PerProcess"]

T = TypeVar("T")


class PerProcess(Generic[T]):
    """A value that each process makes for itself, when it first asks; a copy in another process is empty."""

    def __init__(self, make: Callable[[], T]):
        self._make = make
        self._made: tuple[int, T] | None = None
        self._lock = (os.getpid(), threading.Lock())

    def __reduce__(self) -> tuple[type, tuple[Callable[[], T]]]:
        return PerProcess, (self._make,)

    def get(self) -> T:
        """The value of this process."""
        process, made = os.getpid(), self._made
        if made and made[0] == process:
            return made[1]
        if self._lock[0] != process:
            self._lock = (process, threading.Lock())
        with self._lock[1]:
            if not self._made or self._made[0] != process:
                self._made = (process, self._make())
            return self._made[1]
