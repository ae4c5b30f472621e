"""What a run keeps of itself: the states that it goes on from, the checkpoints of its averages, and how it stands."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from cmtool.commands.training.disk_space import check_room, is_full, size_of
from cmtool.commands.training.metrics import MetricsLog
from cmtool.commands.training.numerics import numerics
from cmtool.commands.training.resume import resume_command
from cmtool.core.denoiser import Denoiser
from cmtool.errors import BadFile, MissingInput, WriteFailed
from cmtool.files import runs
from cmtool.files.atomic import remove
from cmtool.files.best_checkpoint import prune_best
from cmtool.files.checkpoint import DTYPES, save
from cmtool.files.header import Header, read_header
from cmtool.files.rewind import rewind
from cmtool.files.run_states import keep_newest, state_path, stored_states
from cmtool.files.runs import CHECKPOINT
from cmtool.files.sealed import save_state
from cmtool.files.sharded_states import save_sharded
from cmtool.options.ema_spec import EMASpec, parse_ema_specs
from cmtool.options.save_interval import parse_save_interval
from cmtool.pipelines.distributed import is_main_rank
from cmtool.pipelines.training import current_header
from cmtool.pipelines.training_job import TrainingJob
from cmtool.settings import TrainOptions
from cmtool.training.sharding import gather_model
from cmtool.training.state import pack

__all__ = ["Saver"]


class Saver:
    """Writes into the run directory ``folder`` what ``job`` is at the moment.

    A kill at any point leaves a run that goes on: the state is written first, then the checkpoints, which are those of
    the state or are written anew when it is taken up, then the status, and at last old states are removed.
    """

    def __init__(self, options: TrainOptions, job: TrainingJob, folder: Path, metrics: MetricsLog):
        self.options, self.job, self.folder, self.metrics = options, job, folder, metrics
        self.facts: dict[str, Any] = {}  # what status.json says besides
        self.model = cast(Denoiser, job.state.average.model)
        models = [average.model for average in (job.state.average, *job.state.others.values())]
        self.tracks = dict(zip(parse_ema_specs(options.ema), cast(list[Denoiser], models), strict=True))
        self.interval = parse_save_interval(options.save_every)
        self.saved_at, self.wanted = time.monotonic(), False
        self.whole: dict[EMASpec, Denoiser] = {}  # the models of a sharded run, as they were last gathered

    def gather(self, everywhere: bool = False) -> Mapping[EMASpec, Denoiser]:
        """The models of the tracks with whole weights, on the first rank or ``everywhere``; all ranks call it."""
        sharding = self.job.state.sharding
        if sharding is None:
            return self.tracks
        keep = everywhere or is_main_rank()
        found = {track: gather_model(model, sharding, keep) for track, model in self.tracks.items()}
        self.whole = {track: model for track, model in found.items() if model is not None}
        return self.whole

    def save_shards(self) -> None:
        """Write the state of all ranks, each its part, where the weights are sharded; all ranks call it."""
        if self.job.state.sharding:
            self._with_room(self._save_state)

    def due(self, images: int) -> bool:
        """Whether the step that ended at ``images`` is to be saved; not amid steps that were left out."""
        self.wanted |= self.interval.due(images, self.options.batch, time.monotonic() - self.saved_at)
        return self.wanted and not self.job.state.streak

    def save(self, word: str, **facts: Any) -> None:
        """Save the state, the checkpoints, and how the run stands; old states go.

        WriteFailed, with the last good state named, where that fails even without the oldest state that was there.
        """
        if not self.job.state.sharding:  # then it is there already
            self._with_room(self._save_state)
        self._with_room(self.save_models)
        self.status(word, **facts)
        if not self.job.state.streak:  # what a rollback would need stays
            keep_newest(self.folder, self.options.keep)
            prune_best(self.folder, [int(path.stem) for path in stored_states(self.folder)])

    def save_rolled_back(self) -> None:
        """Save a run that was put back: the state with its new draws is there before the newer ones go."""
        if not self.job.state.sharding:
            self._with_room(self._save_state)
        rewind(self.folder, self.job.state.images)
        self._with_room(self.save_models)
        self.status("running")

    def _save_state(self) -> None:
        tensors, scalars = pack(self.job.state)
        sharded = self.job.state.sharding is not None
        if not sharded:  # the ranks settle it among themselves
            check_room(self.folder, size_of(tensors.values()) + size_of(self.model.state_dict().values()))
        path = state_path(self.folder, scalars["images"], sharded)
        scalars |= {"parents": self.job.header.parents, "metrics": self.metrics.state()}
        scalars["numerics"] = numerics(self.options, self.job)
        if sharded:
            names = ("average.", *(f"averages/{name}/" for name in self.job.state.others))
            headers = [self.header(track).document() for track in self.tracks]
            scalars["models"] = dict(zip(names, headers, strict=True))
            save_sharded(path, tensors, scalars)
        else:
            save_state(path, tensors, scalars)
        self.saved_at, self.wanted = time.monotonic(), False

    def _with_room(self, write: Callable[[], None]) -> None:
        """Write; on a full disk once more without the oldest state."""
        try:
            return write()
        except WriteFailed as error:
            *_, oldest = [None, *stored_states(self.folder)[1:]]
            if not is_full(error) or oldest is None or self.job.state.sharding:
                raise self._failed(error) from error
            remove(oldest)
        try:
            write()
        except WriteFailed as error:
            raise self._failed(error) from error

    def _failed(self, error: WriteFailed) -> WriteFailed:
        states = stored_states(self.folder)
        last = f"the last good state is {states[0]}" if states else "nothing was saved before"
        again = resume_command(self.options.command, self.folder)
        return WriteFailed(f"{error.message}; {last}", f"free some space, then go on with: {again}")

    def save_models(self) -> None:
        """The checkpoints of the averages as they are now."""
        for track, model in (self.whole or self.tracks).items():
            save(self._place(track), model, self.header(track))

    def renew_models(self) -> None:
        """The same, where one of them is not there or of another moment, as after a kill."""
        if not all(self._is_current(self._place(track)) for track in self.tracks):
            self.save_models()

    def _is_current(self, path: Path) -> bool:
        try:
            return read_header(path, whole=True).images == self.job.state.images
        except (BadFile, MissingInput):
            return False

    def _place(self, track: EMASpec) -> Path:
        first = self.tracks[track] is self.model
        return self.folder / CHECKPOINT if first else runs.average_path(self.folder, track.name)

    def status(self, word: str, **facts: Any) -> None:
        """Say how the run stands, in ``status.json``, from which ``cmtool status`` reads it."""
        state = self.job.state
        runs.write_status(
            self.folder,
            word,
            images=state.images,
            total=self.options.images,
            skipped=state.skipped,
            draws=state.draws,
            saved=self._last_save(),
            command=resume_command(self.options.command, self.folder.absolute()),
            **self.metrics.speed(),
            **self.facts,
            **facts,
        )

    def _last_save(self) -> dict[str, Any] | None:
        """The newest state that is there: at how many images, in which file, and when it was written."""
        newest = next(iter(stored_states(self.folder)), None)
        if newest is None:
            return None
        written = datetime.fromtimestamp(newest.stat().st_mtime, UTC).isoformat(timespec="seconds")
        return {"images": int(newest.stem), "file": newest.relative_to(self.folder).as_posix(), "time": written}

    def store_power_averages(self) -> None:
        """Checkpoints of the power averages as they are now, from which others can be rebuilt."""
        for track, model in (self.whole or self.tracks).items():
            if track.form == "power":
                place = runs.average_path(self.folder, track.name, self.job.state.images)
                save(place, model, self.header(track), DTYPES[self.options.ema_dtype])

    def header(self, track: EMASpec, **facts: Any) -> Header:
        """As of this step: a method may change its sampling noise levels during training."""
        return replace(current_header(self.job), average={"ema": str(track)}, **facts)
