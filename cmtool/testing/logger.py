"""What a logger has to be."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

from cmtool.loggers import LoggedRun, Logger
from cmtool.testing.common import require

__all__ = ["check_logger"]

STEPS = (64, 128, 192)
OPTIONS = {"lr": 0.001, "data": {"name": "digits"}, "loggers": [{"name": "this"}], "init": None}


def check_logger(factory: Callable[..., Logger], folder: Path) -> None:
    """``factory(run)`` makes a logger of a run in the empty ``folder``, and another of the same run when it goes on.

    It takes figures, also such as are not finite, and pictures in grey and in colour, keeps what it writes inside the
    folder, and leaves no file open to whoever reads after ``close``.
    """
    before = {path.name for path in folder.parent.iterdir()}
    for start in (0, STEPS[0]):
        logger = factory(LoggedRun(folder, "train-ct", OPTIONS, start))
        for images in (step for step in STEPS if step > start):
            values = {"loss": 1 / images, "eval/FD-small/half-life-1500": math.nan, "timing/images_per_second": 1e3}
            require(logger.log(images, values) is None, "log returns nothing")
            require(values["loss"] == 1 / images and len(values) == 3, "log leaves the figures as they are")
            for channels in (1, 3):
                picture = np.full((channels, 6, 8), images % 256, dtype=np.uint8)
                require(logger.draw(images, f"samples-{channels}", picture) is None, "draw returns nothing")
                require(bool((picture == images % 256).all()), "draw leaves the picture as it is")
        require(logger.close() is None, "close returns nothing")
    require({path.name for path in folder.parent.iterdir()} == before, "a logger writes inside the folder of the run")
