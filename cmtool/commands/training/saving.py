"""What a run keeps of itself: the checkpoints of its averages, the state that it goes on from, and how it stands."""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from cmtool.core.denoiser import Denoiser
from cmtool.files import runs
from cmtool.files.best_checkpoint import prune_best
from cmtool.files.checkpoint import DTYPES, save
from cmtool.files.header import Header
from cmtool.files.runs import CHECKPOINT
from cmtool.files.sealed import save_state
from cmtool.options.ema_spec import EMASpec, parse_ema_specs
from cmtool.pipelines.training import current_header
from cmtool.pipelines.training_job import TrainingJob
from cmtool.settings import TrainOptions
from cmtool.training.loop import pack

__all__ = ["Saver"]


class Saver:
    """Writes into the run directory ``folder`` what ``job`` is at the moment."""

    def __init__(self, options: TrainOptions, job: TrainingJob, folder: Path):
        self.options, self.job, self.folder = options, job, folder
        self.model = cast(Denoiser, job.state.average.model)
        models = [average.model for average in (job.state.average, *job.state.others.values())]
        self.facts: dict[str, Any] = {}  # what status.json says besides
        self.tracks = dict(zip(parse_ema_specs(options.ema), cast(list[Denoiser], models), strict=True))

    def save(self, word: str, **facts: Any) -> None:
        """Save the checkpoint, the state to go on from, and how the run stands."""
        state = self.job.state
        for track, model in self.tracks.items():
            place = runs.average_path(self.folder, track.name) if model is not self.model else self.folder / CHECKPOINT
            save(place, model, self.header(track))
        save_state(self.folder, *pack(state))
        prune_best(self.folder, state.images)
        self.status(word, **facts)

    def status(self, word: str, **facts: Any) -> None:
        runs.write_status(
            self.folder, word, images=self.job.state.images, skipped=self.job.state.skipped, **self.facts, **facts
        )

    def store_power_averages(self) -> None:
        """Checkpoints of the power averages as they are now, from which others can be rebuilt."""
        for track, model in self.tracks.items():
            if track.form == "power":
                place = runs.average_path(self.folder, track.name, self.job.state.images)
                save(place, model, self.header(track), DTYPES[self.options.ema_dtype])

    def header(self, track: EMASpec, **facts: Any) -> Header:
        """As of this step: a method may change its sampling noise levels during training."""
        return replace(current_header(self.job), average={"ema": str(track)}, **facts)
