"""Where the figures and pictures of a run go: its ``.jsonl`` files, and the loggers that were asked for."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from cmtool.commands.console import Console
from cmtool.loggers import LoggedRun, Logger
from cmtool.options import registry
from cmtool.pipelines.distributed import is_main_rank
from cmtool.pipelines.training_job import plain
from cmtool.settings import TrainOptions

__all__ = ["RunLog"]

OWN = "jsonl"


class RunLog:
    """All loggers of a run. One of the user's that fails is warned of once and left alone: training goes on.

    The run's own lines belong to its result: what goes wrong with them ends it.
    """

    def __init__(self, own: Logger | None, others: Mapping[str, Logger], console: Console):
        self.own, self.others, self.console = own, dict(others), console

    @classmethod
    def of(cls, options: TrainOptions, folder: Path, images: int, console: Console) -> "RunLog":
        """The loggers of ``options``, of which only the main rank has any; MissingAsset where a library lacks."""
        if not is_main_rank():
            return cls(None, {}, console)
        about = plain(asdict(replace(options, run_dir=None, resume=None, dry_run=False)))
        run = LoggedRun(folder, options.command, about, images)
        others = {spec.name: registry.build("loggers", spec, run) for spec in options.log if spec.name != OWN}
        return cls(registry.build("loggers", OWN, run), others, console)

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
