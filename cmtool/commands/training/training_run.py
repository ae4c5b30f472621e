"""The steps of one run, and what is written and reported meanwhile."""

import time
from collections.abc import Callable
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
from cmtool.commands.training.rollback import PATIENCE, divergence, keep_divergence, roll_back
from cmtool.commands.training.saving import Saver
from cmtool.core.denoiser import Denoiser
from cmtool.core.noise import Noise
from cmtool.errors import (
    BadFile,
    CmtoolError,
    Diverged,
    Interrupted,
    LostRank,
    MissingInput,
    OutOfMemory,
    Preempted,
    WriteFailed,
    is_out_of_memory,
)
from cmtool.files.model_format import LoadedModel
from cmtool.files.picture_files import write_picture
from cmtool.pipelines.classes import labels_of
from cmtool.pipelines.distributed import failure_code, find_world, run_on_main
from cmtool.pipelines.model_evaluator import ModelEvaluator
from cmtool.pipelines.sampler_setup import set_up_sampler
from cmtool.pipelines.sampling_pipeline import draw
from cmtool.pipelines.training import current_header, training_steps
from cmtool.pipelines.training_job import TrainingJob
from cmtool.settings import TrainOptions
from cmtool.training.loop import Report
from cmtool.training.state import pack_whole

__all__ = ["TrainingRun"]

PREEMPTED, INTERRUPTED = 1, 2  # which signal a rank has got


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
        self.log = RunLog(console)
        self.metrics = MetricsLog(options, job, self.log)
        self.saver = Saver(options, job, folder, self.metrics)
        self.evaluation = EvaluationRun(evaluator, self.saver, self.log, console, stop) if evaluator else None
        self.world, self.cores, self.asked = find_world(), torch.get_num_threads(), 0

    def run(self) -> float:
        """Train to the end; the seconds it took. Interrupted or Preempted when a signal came first."""
        options, state = self.options, self.job.state
        began = time.monotonic()
        if self.world.main:
            self.saver.status("running")
        try:
            self.log.open(options, self.folder, state.images)
            if self.evaluation:
                self.evaluation.begin()
            with self.console.progress(options.images, "images", options.command) as progress:
                while self.train_on(progress):
                    self.go_back()
            if state.images < options.images:
                self.pause()
            self.save("finished", exit_code=0)
        except (BadFile, MissingInput) as error:  # a picture that cannot be read
            raise self.broken(error) from error
        except (Diverged, Interrupted, Preempted):  # who raised them has said so in the folder
            raise
        except BaseException as error:
            if self.world.main:
                self.note(error)
            raise
        finally:
            self.log.close()
        return time.monotonic() - began

    def on_main(self, work: Callable[[], None]) -> None:
        """Let the first rank alone write; all ranks are at the same step. Sharded models come together there."""
        self.saver.gather()
        run_on_main(self.world, work)

    def save(self, word: str, **facts: Any) -> None:
        """Save a run; of sharded weights each rank writes its part."""
        self.saver.save_shards()
        self.on_main(lambda: self.saver.save(word, **facts))

    def note(self, error: BaseException) -> None:
        """Say in the folder how the run ended. Where another rank failed, what was learned is saved: it is whole."""
        with suppress(OSError, WriteFailed):
            word = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            if isinstance(error, LostRank) and self.job.state.images and not self.job.state.sharding:
                self.saver.save(word, exit_code=failure_code() or error.code)
            else:
                self.saver.status(word, exit_code=code_of(error))

    def poll(self) -> tuple[int, int]:
        """What the ranks agree on in each step: that there was a signal, and that it is time to save."""
        due = self.world.main and self.saver.due(self.job.state.images + self.options.batch)
        return self.signal(), int(due)

    def signal(self) -> int:
        """The signal that this rank has got, that of a user before that of a scheduler."""
        return 0 if not self.stop.asked else PREEMPTED if self.stop.preempted else INTERRUPTED

    def train_on(self, progress: Any) -> bool:
        """Step to the end, or until a signal comes; True where so many gradients were not finite that it ends here."""
        with closing(training_steps(self.options, self.job, poll=self.poll)) as steps:
            for report in steps:
                self.step(report, progress)
                if self.job.state.streak >= PATIENCE:
                    return True
                # alone, there is nobody to ask about a signal that came after the gradient
                self.asked = report.polled[0] if self.world.size > 1 else self.signal()
                if self.asked:
                    break
        return False

    def step(self, report: Report, progress: Any) -> None:
        """What a step is followed by. What is written here is written again when the run goes on from before it."""
        for remark in report.remarks:
            self.console.warn(remark)
        loss = self.metrics.add(report)
        if loss is not None:
            progress.update(report.images, loss=f"{loss:.4g}")
        if self.evaluation:
            self.evaluation.after(report.images, bool(report.polled[0]))
        if self.options.due(report.images, self.options.ema_snapshots):
            self.on_main(self.saver.store_power_averages)
        if self.options.due(report.images, self.options.snapshots):
            self.on_main(lambda: self.picture(report.images))
        _, save = report.polled
        if save and report.images < self.options.images:
            self.save("running")

    def picture(self, images: int) -> None:
        """A sheet of samples of the averaged model, always of the same seeds."""
        header = current_header(self.job)
        seeds = range(max(header.num_classes, 8) * (4 if header.num_classes else 8))
        labels = labels_of(seeds, header.num_classes)
        average = next(iter(self.saver.whole.values()), cast(Denoiser, self.job.state.average.model))
        model = LoadedModel(average, header, self.folder)
        # torch itself has one core in training
        made = draw(model, set_up_sampler(header), Noise(seeds), labels, self.cores)
        picture = sheet(made, max(header.num_classes, 8))
        write_picture(self.folder / "samples" / f"{images:08d}.png", picture)
        self.log.draw(images, "samples", picture)

    def go_back(self) -> None:
        """Once, to the last good save, with other draws; Diverged the second time."""
        state, at = self.job.state, self.job.state.images
        if state.draws:
            tensors = pack_whole(state, self.world.main)
            self.on_main(lambda: keep_divergence(self.saver, tensors))
            raise divergence(self.options, self.folder)
        scalars = roll_back(self.options, self.job, self.folder, self.console.warn)
        self.metrics.load_state(scalars.get("metrics", {}))
        self.metrics.restart_clock()
        self.saver.save_shards()
        self.on_main(self.saver.save_rolled_back)
        self.log.open(self.options, self.folder, state.images)
        if self.evaluation:
            self.evaluation.tell_status()
        self.console.warn(
            f"the last {PATIENCE} gradients before {at:,} images were not finite; "
            f"going on from {state.images:,} images with other random draws"
        )

    def broken(self, error: BadFile | MissingInput) -> CmtoolError:
        """The message about a picture that ended the run, when what was learned is saved."""
        images, reason = self.job.state.images, f"{error.message} "
        if not images:
            if self.world.main:
                self.saver.status("failed", reason=reason, exit_code=error.code)
            return error
        if self.world.main and not self.job.state.sharding:
            self.saver.save("failed", reason=reason, exit_code=error.code)
        return type(error)(
            f"{error.message}; stopped at {images:,} of {self.options.images:,} images, all is saved in {self.folder}",
            f"mend it, then go on with: {resume_command(self.options.command, self.folder)}",
        )

    def pause(self) -> None:
        kind, word = (Preempted, "preempted") if self.asked == PREEMPTED else (Interrupted, "interrupted")
        self.save(word, exit_code=kind.code)
        raise kind(
            f"stopped at {self.job.state.images:,} of {self.options.images:,} images; all is saved in {self.folder}",
            f"go on with: {resume_command(self.options.command, self.folder)}",
        )


def code_of(error: BaseException) -> int:
    """The exit code of the command that ends with an error."""
    if isinstance(error, KeyboardInterrupt):
        return Interrupted.code
    if is_out_of_memory(error):
        return OutOfMemory.code
    return error.code if isinstance(error, CmtoolError) else WriteFailed.code if isinstance(error, OSError) else 1
