"""``jsonl``: the figures of a run as lines of JSON, which every run has."""

from collections.abc import Mapping

import numpy as np

from cmtool.files import runs
from cmtool.loggers import LoggedRun

__all__ = ["JSONLines", "jsonl"]


class JSONLines:
    """A line of ``metrics.jsonl`` for each call: ``{"images": 1024, "loss": 0.1}``; NaN becomes null."""

    def __init__(self, run: LoggedRun):
        self.folder = run.folder

    def log(self, images: int, values: Mapping[str, float]) -> None:
        runs.append(self.folder, {"images": images, **values})

    def draw(self, images: int, name: str, picture: np.ndarray) -> None:
        """The run directory has the pictures already."""

    def close(self) -> None:
        """Every line is written at once."""


def jsonl(run: LoggedRun) -> JSONLines:
    """The figures of a run as lines of JSON in its directory, in ``metrics.jsonl``.

    Use: always; every run has it. ``pandas.read_json(path, lines=True)`` reads it.
    """
    return JSONLines(run)
