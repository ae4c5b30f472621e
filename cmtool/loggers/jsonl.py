"""``jsonl``: the figures of a run as lines of JSON, which every run has."""

from collections.abc import Mapping

import numpy as np

from cmtool.files import runs
from cmtool.loggers import TIMING, LoggedRun

__all__ = ["JSONLines", "jsonl"]


class JSONLines:
    """A line of ``metrics.jsonl`` for each call, ``{"images": 1024, "loss": 0.1}``; NaN becomes null.

    What a clock has made goes to ``timing.jsonl``: a run has the same ``metrics.jsonl`` wherever it was stopped.
    """

    def __init__(self, run: LoggedRun):
        self.folder = run.folder

    def log(self, images: int, values: Mapping[str, float]) -> None:
        clock = {name.removeprefix(TIMING): value for name, value in values.items() if name.startswith(TIMING)}
        others = {name: value for name, value in values.items() if not name.startswith(TIMING)}
        if clock:
            runs.append(self.folder, {"images": images, **clock}, runs.TIMING)
        if others:
            runs.append(self.folder, {"images": images, **others})

    def draw(self, images: int, name: str, picture: np.ndarray) -> None:
        """The run directory has the pictures already."""

    def close(self) -> None:
        """Every line is written at once."""


def jsonl(run: LoggedRun) -> JSONLines:
    """The figures of a run as lines of JSON in its directory, in ``metrics.jsonl`` and ``timing.jsonl``.

    Use: always; every run has it. ``pandas.read_json(path, lines=True)`` reads it.
    """
    return JSONLines(run)
