"""``metrics.jsonl``: how training goes, in lines that are means over the steps since the last one.

They hold nothing of the clock, so that a run has the same lines wherever it was stopped; that is in ``timing.jsonl``.
"""

import time
from collections.abc import Mapping
from typing import Any

from cmtool.commands.training.logs import RunLog
from cmtool.loggers import TIMING
from cmtool.pipelines.distributed import is_main_rank
from cmtool.pipelines.training_job import TrainingJob
from cmtool.settings import TrainOptions
from cmtool.training.loop import Report

__all__ = ["MetricsLog"]

LINES = 200  # of metrics.jsonl in a whole run


class MetricsLog:
    """Collects reports of steps, and writes a line when one is due; of several ranks the first one does."""

    def __init__(self, options: TrainOptions, job: TrainingJob, log: RunLog):
        self.writes = is_main_rank()
        self.options, self.job, self.log = options, job, log
        self.sum, self.count = 0.0, 0
        self.restart_clock()

    def restart_clock(self) -> None:
        """From here on the speed is measured."""
        self.first, self.began = self.job.state.images, time.monotonic()

    def add(self, report: Report) -> float | None:
        """The mean loss since the last line, when a line was written."""
        state, due = self.job.state, self.options.due(report.images, LINES)
        # of sharded weights all ranks have a part
        gap = float(state.average.gap(state.model)) if due and (self.writes or state.sharding) else 0.0
        if not self.writes:
            return None
        self.sum, self.count = self.sum + float(report.loss), self.count + 1
        if not due:
            return None
        loss = self.sum / self.count
        self.sum, self.count = 0.0, 0
        line = {
            "loss": loss,
            "gradient": float(report.gradient),
            "ema_gap": gap,
            "lr": report.rate,
            "skipped": state.skipped,
        }
        clock = {f"{TIMING}{name}": value for name, value in self.speed().items()}
        self.log.log(report.images, {**line, **clock})
        return loss

    def speed(self) -> dict[str, float]:
        """Images a second since this process began to train, and how many seconds that is."""
        seconds = time.monotonic() - self.began
        rate = (self.job.state.images - self.first) / max(seconds, 1e-9)
        return {"images_per_second": round(rate, 2), "seconds": round(seconds, 2)}

    def state(self) -> dict[str, Any]:
        """What the next line is a mean of, as a training state holds it."""
        return {"loss_sum": self.sum, "loss_count": self.count}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on with what ``state()`` was when the training state was saved; one of an older version has none."""
        self.sum, self.count = float(state.get("loss_sum", 0.0)), int(state.get("loss_count", 0))
