"""``tensorboard``: the event files of TensorBoard."""

from collections.abc import Mapping
from typing import Annotated

import numpy as np

from cmtool.errors import MissingAsset
from cmtool.loggers import LoggedRun
from cmtool.options.plugin_option import Option
from cmtool.options.types import at_least

__all__ = ["FOLDER", "TensorBoard", "tensorboard"]

FOLDER = "tensorboard"


class TensorBoard:
    """Scalars and pictures over the images seen, through the writer of torch.

    A run that goes back to ``run.images`` starts its file with a purge of all later steps.
    """

    def __init__(self, run: LoggedRun, flush_secs: int):
        from torch.utils.tensorboard import SummaryWriter

        purge_step = run.images + 1 if run.images else None
        self.writer = SummaryWriter(str(run.folder / FOLDER), purge_step=purge_step, flush_secs=flush_secs)

    def log(self, images: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, images)

    def draw(self, images: int, name: str, picture: np.ndarray) -> None:
        self.writer.add_image(name, picture, images, dataformats="CHW")

    def close(self) -> None:
        self.writer.close()


def tensorboard(
    run: LoggedRun,
    *,
    flush_secs: Annotated[int, Option("seconds between writes to the disk", at_least(1, 86_400))] = 30,
) -> TensorBoard:
    """Event files for TensorBoard, scalars and sample grids, in the folder ``tensorboard`` of the run.

    Use: to watch one run or to compare several: ``tensorboard --logdir runs``. Needs ``cmtool[tensorboard]``.
    """
    try:
        return TensorBoard(run, flush_secs)
    except ImportError as error:
        raise MissingAsset(
            "the logger 'tensorboard' needs the package tensorboard, which is not installed",
            "pip install 'cmtool[tensorboard]'",
        ) from error
