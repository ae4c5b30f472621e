"""Loggers: where the figures of a training run go. The contract, and the plugins that come with cmtool.

A logger is a function ``(run, *, **options) -> Logger`` in the entry-point group ``cmtool.loggers``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

__all__ = ["TIMING", "LoggedRun", "Logger"]

TIMING = "timing/"  # how the names of figures begin that a clock has made: they differ from run to run


@dataclass(frozen=True)
class LoggedRun:
    """The run that is logged.

    ``folder`` is its directory, where a logger may keep files of its own, ``options`` are those of ``command`` as JSON
    holds them, and ``images`` is where training starts or continues: what was logged beyond that is void.
    """

    folder: Path
    command: str
    options: Mapping[str, Any]
    images: int = 0


class Logger(Protocol):
    """What a logger has to be. ``images`` counts the images seen so far, and never falls."""

    def log(self, images: int, values: Mapping[str, float]) -> None:
        """Figures by name, such as ``loss`` and ``eval/FD-small/half-life-1500``; one may be NaN."""
        ...

    def draw(self, images: int, name: str, picture: np.ndarray) -> None:
        """A picture uint8 [C, H, W] with 1 or 3 channels, such as the sample grid ``samples``."""
        ...

    def close(self) -> None:
        """Called once, at the end of the process, whether or not the run has finished."""
        ...
