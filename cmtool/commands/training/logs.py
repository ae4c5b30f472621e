"""Where the figures and pictures of a run go: its ``.jsonl`` files, and the loggers that were asked for."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np

from cmtool.commands.console import Console
from cmtool.loggers import LoggedRun, Logger
from cmtool.options import registry
from cmtool.pipelines.distributed import is_main_rank
from cmtool.pipelines.inputs import kept_options
from cmtool.pipelines.training_job import plain
from cmtool.settings import TrainOptions

__all__ = ["RunLog"]

OWN = "jsonl"


class RunLog:
    """All loggers of a run. One of the user's that fails is warned of once and left alone: training goes on.

    The run's own lines belong to its result: what goes wrong with them ends it.
    """

    def __init__(self, console: Console):
        self.console = console
        self.own: Logger | None = None
        self.others: dict[str, Logger] = {}

    def open(self, options: TrainOptions, folder: Path, images: int) -> None:
        """The loggers of ``options`` for a run that starts or continues at ``images``; once more when it goes back.

        Only the main rank has any. MissingAsset where a library lacks.
        """
        self.close()
        if is_main_rank():
            run = LoggedRun(folder, options.command, plain(asdict(kept_options(options))), images)
            self.own = registry.build("loggers", OWN, run)
            for spec in options.loggers:
                if spec.name != OWN:
                    self.others[spec.name] = registry.build("loggers", spec, run)

    def log(self, images: int, values: Mapping[str, float]) -> None:
        """A line of figures by name."""
        if self.own:
            self.own.log(images, values)
        self._each(lambda logger: logger.log(images, values))

    def draw(self, images: int, name: str, picture: np.ndarray) -> None:
        """A picture uint8 [C, H, W]."""
        self._each(lambda logger: logger.draw(images, name, picture))

    def close(self) -> None:
        self._each(lambda logger: logger.close())
        self.others.clear()

    def _each(self, call: Callable[[Logger], None]) -> None:
        for name, logger in list(self.others.items()):
            try:
                call(logger)
            except Exception as error:  # a logger may fail in any way, and is worth no hour of training
                del self.others[name]
                self.console.warn(
                    f"the logger '{name}' failed and gets no more figures: {type(error).__name__}: {error}"
                )
