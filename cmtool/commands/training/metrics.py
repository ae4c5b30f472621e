"""``metrics.jsonl``: how training goes, in lines that are means over the steps since the last one."""

import time

import torch

from cmtool.commands.training.logs import RunLog
from cmtool.pipelines.training_job import TrainingJob
from cmtool.settings import TrainOptions
from cmtool.training.loop import Report

__all__ = ["MetricsLog"]

LINES = 200  # of metrics.jsonl in a whole run


class MetricsLog:
    """Collects reports of steps, and writes a line when one is due."""

    def __init__(self, options: TrainOptions, job: TrainingJob, log: RunLog):
        self.options, self.job, self.log = options, job, log
        self.first, self.began = job.state.images, time.monotonic()
        self.losses: list[torch.Tensor] = []

    def add(self, report: Report) -> float | None:
        """The mean loss since the last line, when a line was written."""
        self.losses.append(report.loss)
        if not self.options.due(report.images, LINES):
            return None
        loss = float(torch.stack(self.losses).mean())
        self.losses.clear()
        seconds, state = time.monotonic() - self.began, self.job.state
        line = {
            "loss": loss,
            "gradient": float(report.gradient),
            "ema_gap": float(state.average.gap(state.model)),
            "lr": report.rate,
            "images_per_second": round((report.images - self.first) / seconds, 2),
            "seconds": round(seconds, 2),
            "skipped": state.skipped,
        }
        self.log.log(report.images, line)
        return loss
