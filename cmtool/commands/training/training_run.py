"""The steps of one run, and what is written and reported meanwhile."""

import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, cast

import torch

from cmtool.commands.console import Console
from cmtool.commands.shared.preview import sheet
from cmtool.commands.signals import Stop
from cmtool.commands.training.evaluation import EvaluationRun
from cmtool.commands.training.logs import RunLog
from cmtool.commands.training.metrics import MetricsLog
from cmtool.commands.training.resume import resume_command
from cmtool.commands.training.saving import Saver
from cmtool.core.denoiser import Denoiser
from cmtool.core.noise import Noise
from cmtool.errors import BadFile, CmtoolError, Diverged, Interrupted, MissingInput, Preempted, WriteFailed
from cmtool.files.model_format import LoadedModel
from cmtool.files.picture_files import write_picture
from cmtool.pipelines.classes import labels_of
from cmtool.pipelines.model_evaluator import ModelEvaluator
from cmtool.pipelines.sampler_setup import set_up_sampler
from cmtool.pipelines.sampling_pipeline import draw
from cmtool.pipelines.training import current_header, training_steps
from cmtool.pipelines.training_job import TrainingJob
from cmtool.settings import TrainOptions
from cmtool.training.batches import ahead
from cmtool.training.loop import Report

__all__ = ["TrainingRun"]

PATIENCE = 5  # steps in a row without a finite gradient


class TrainingRun:
    """The steps of one run: after each what is due is logged, drawn and saved."""

    def __init__(
        self,
        options: TrainOptions,
        job: TrainingJob,
        folder: Path,
        console: Console,
        stop: Stop,
        evaluator: ModelEvaluator | None = None,
    ):
        self.options, self.job, self.folder, self.console, self.stop = options, job, folder, console, stop
        self.saver, self.log = Saver(options, job, folder), RunLog.of(options, folder, job.state.images, console)
        self.metrics = MetricsLog(options, job, self.log)
        self.evaluation = EvaluationRun(evaluator, self.saver, self.log, console, stop) if evaluator else None
        self.cores = torch.get_num_threads()
        self.bad = 0

    def close(self) -> None:
        """Let go of the loggers."""
        self.log.close()

    def run(self) -> float:
        """Train to the end; the seconds it took. Interrupted or Preempted when a signal came first."""
        options, state = self.options, self.job.state
        began = time.monotonic()
        self.saver.status("running")
        if self.evaluation:
            self.evaluation.catch_up()
        batches = ahead(self.job.batches.since(state.images))
        steps = training_steps(options, self.job, batches)
        try:
            with (
                closing(batches),
                closing(steps),
                self.console.progress(options.images, "images", options.command) as progress,
            ):
                for report in steps:
                    self.step(report, progress)
                    if self.stop.asked:
                        break
        except (BadFile, MissingInput) as error:  # a picture that cannot be read
            raise self.broken(error) from error
        except BaseException as error:
            with suppress(OSError, WriteFailed):
                self.saver.status("interrupted" if isinstance(error, KeyboardInterrupt) else "failed")
            raise
        if state.images < options.images:
            self.pause()
        self.saver.save("finished")
        return time.monotonic() - began

    def step(self, report: Report, progress: Any) -> None:
        self.bad = 0 if report.finite else self.bad + 1
        if self.bad >= PATIENCE:
            self.saver.save("failed")
            raise Diverged(
                f"the last {PATIENCE} gradients were not finite; the weights before them are in {self.folder}",
                f"start again with a lower learning rate, --lr {self.options.lr / 3:.1g}, or with --grad-clip 1",
            )
        loss = self.metrics.add(report)
        if loss is not None:
            progress.update(report.images, loss=f"{loss:.4g}")
        if self.evaluation:
            self.evaluation.after(report.images)
        if self.options.due(report.images, self.options.ema_snapshots):
            self.saver.store_power_averages()
        if self.options.due(report.images, self.options.snapshots):
            self.picture(report.images)
            if report.images < self.options.images:
                self.saver.save("running")

    def picture(self, images: int) -> None:
        """A sheet of samples of the averaged model, always of the same seeds."""
        header = current_header(self.job)
        seeds = range(max(header.num_classes, 8) * (4 if header.num_classes else 8))
        labels = labels_of(seeds, header.num_classes)
        model = LoadedModel(cast(Denoiser, self.job.state.average.model), header, self.folder)
        # torch itself has one core in training
        made = draw(model, set_up_sampler(header), Noise(seeds), labels, self.cores)
        picture = sheet(made, max(header.num_classes, 8))
        write_picture(self.folder / "samples" / f"{images:08d}.png", picture)
        self.log.draw(images, "samples", picture)

    def broken(self, error: BadFile | MissingInput) -> CmtoolError:
        """The message about a picture that ended the run, when what was learned is saved."""
        images, reason = self.job.state.images, f"{error.message} "
        if not images:
            self.saver.status("failed", reason=reason)
            return error
        self.saver.save("failed", reason=reason)
        return type(error)(
            f"{error.message}; stopped at {images:,} of {self.options.images:,} images, all is saved in {self.folder}",
            f"mend it, then go on with: {resume_command(self.options.command, self.folder)}",
        )

    def pause(self) -> None:
        self.saver.save("preempted" if self.stop.preempted else "interrupted")
        kind = Preempted if self.stop.preempted else Interrupted
        raise kind(
            f"stopped at {self.job.state.images:,} of {self.options.images:,} images; all is saved in {self.folder}",
            f"go on with: {resume_command(self.options.command, self.folder)}",
        )
