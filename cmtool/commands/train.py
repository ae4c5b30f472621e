"""``train-score``, ``distill`` and ``train-ct``: one command with three starts."""

import math
import time
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import Any, cast

import torch

from cmtool.commands.console import Console
from cmtool.commands.shared.preview import sheet
from cmtool.commands.signals import Stop
from cmtool.commands.training.resume import check_data, check_unchanged, is_done, resume_command, resume_run
from cmtool.core.denoiser import Denoiser
from cmtool.core.noise import Noise
from cmtool.errors import BadFile, CmtoolError, Diverged, Interrupted, MissingInput, Preempted, WriteFailed
from cmtool.files import runs
from cmtool.files.atomic import has_no_locks, write_bytes
from cmtool.files.checkpoint import DTYPES, check_header, save
from cmtool.files.data_fingerprint import write_inventory
from cmtool.files.header import Header, read_header
from cmtool.files.model_format import LoadedModel
from cmtool.files.picture_files import write_picture
from cmtool.files.runs import CHECKPOINT
from cmtool.files.sealed import save_state
from cmtool.options.ema_spec import EMASpec, parse_ema_specs
from cmtool.options.load import dump_options, load_options
from cmtool.pipelines.classes import labels_of
from cmtool.pipelines.distributed import has_stray_rank
from cmtool.pipelines.inputs import anchor_paths, dataset_facts, open_dataset
from cmtool.pipelines.sampler_setup import set_up_sampler
from cmtool.pipelines.sampling_pipeline import draw
from cmtool.pipelines.training import current_header, training_steps
from cmtool.pipelines.training_job import TrainingJob, build_training
from cmtool.settings import TrainOptions
from cmtool.training.batches import ahead
from cmtool.training.devices import choose_device, micro_batch_size, use_threads
from cmtool.training.loop import LoopConfig, Report, pack, train

__all__ = ["run"]

LINES = 200  # of metrics.jsonl in a whole run
PATIENCE = 5  # steps in a row without a finite gradient


def run(options: TrainOptions, console: Console) -> None:
    """Train, keeping a run directory; stop on a signal at the end of a step, with everything saved."""
    if remark := has_stray_rank():
        console.warn(remark)
    use_threads(options.threads)
    where = choose_device(options.device)
    resume = options.resume
    if resume:
        options = check_unchanged(options, resume)
        if is_done(options, resume):
            console.say(f"{resume} has finished already; to go on give more --images than {options.images:,}")
            return finish(resume, options.command, console)
    dataset = open_data(options, console)
    console.say(f"data: {dataset_facts(options.data['name'], dataset, options.conditional)}")
    if resume:
        check_data(dataset, resume)
    job = build_training(options, where, dataset)
    check_header(job.header, cast(Denoiser, job.state.average.model))
    parameters = sum(p.numel() for p in job.state.model.parameters())
    for remark in job.remarks:
        console.say(remark)
    size = f"{parameters:,} parameters on {where}, {torch.get_num_threads()} threads"
    console.say(f"network: {job.header.backbone['name']}, {size}")
    if options.dry_run:
        return preview(options, job, console, parameters)

    folder = resume or runs.create(options.run_dir, options.command, options.data["name"])
    for remark in has_no_locks(folder):
        console.warn(remark)
    with runs.locked(folder), Stop() as stop:
        if resume:
            resume_run(job, folder, options.command)
            console.say(f"going on with {folder} at {job.state.images:,} images")
        keep_options(options, folder)
        write_inventory(folder, dataset)
        seconds = TrainingRun(options, job, folder, console, stop).run()
    return finish(folder, options.command, console, seconds)


def open_data(options: TrainOptions, console: Console) -> Any:
    """The data; MissingInput says how to name those of a run that have moved."""
    try:
        return open_dataset(options.data, console.say)
    except MissingInput as error:
        moved = f"if the data have moved: {resume_command(options.command, options.resume)} --data WHERE"
        raise MissingInput(error.message, moved if options.resume else error.hint) from error


def keep_options(options: TrainOptions, folder: Path) -> None:
    """What the run goes on with when it is taken up; of one that was, its length alone changes."""
    kept = anchor_paths(replace(options, run_dir=None, resume=None, dry_run=False))
    if options.resume:
        stored = load_options(type(options), {}, configs=[folder / "config.yaml"], environment={})
        kept = replace(stored, images=options.images)
    write_bytes(folder / "config.yaml", dump_options(kept).encode())


def finish(folder: Path, command: str, console: Console, seconds: float = 0.0) -> None:
    """Say what a finished run has made."""
    path = folder / CHECKPOINT
    header, status = read_header(path), runs.read_status(folder)
    document = {
        "command": command,
        "run": str(folder),
        "checkpoint": str(path),
        "kind": header.kind,
        "images": header.images,
        "skipped": status.get("skipped", 0),
        "seconds": round(seconds, 2),
    }
    spent = f" in {seconds:.0f} s" if seconds else ""
    console.say(f"{header.images:,} images{spent}; sample it with: cmtool sample --model {quote(str(path))}")
    console.result(document, str(path))


def preview(options: TrainOptions, job: TrainingJob, console: Console, parameters: int) -> None:
    """What a run would cost: a few steps in memory, nothing written."""
    steps, began = 3, time.monotonic()
    micro = options.micro_batch or micro_batch_size(options.batch, job.header.shape, choose_device(options.device))
    some, threads = job.batches.since(0), torch.get_num_threads()
    config = LoopConfig(micro=micro, threads=threads)
    for _ in train(job.state, some, steps * options.batch, lambda n: 0.0, config):
        pass
    rate = steps * options.batch / (time.monotonic() - began)
    document = {
        "command": options.command,
        "data": {"name": options.data["name"], "images": len(job.dataset), "shape": list(job.dataset.shape)},
        "parameters": parameters,
        "images": options.images,
        "steps": math.ceil(options.images / options.batch),
        "images_per_second": round(rate, 1),
        "seconds": round(options.images / rate),
        "checkpoint_bytes": 4 * parameters,
        "state_bytes": (16 + 4 * len(job.state.others)) * parameters,
    }
    text = "\n".join(f"{key}: {value}" for key, value in document.items())
    console.result(document, text + "\nnothing was written; leave out --dry-run to train")


class TrainingRun:
    """The steps of one run, and what is written and reported meanwhile."""

    def __init__(self, options: TrainOptions, job: TrainingJob, folder: Path, console: Console, stop: Stop):
        self.options, self.job, self.folder, self.console, self.stop = options, job, folder, console, stop
        self.model = cast(Denoiser, job.state.average.model)
        models = [average.model for average in (job.state.average, *job.state.others.values())]
        self.tracks = dict(zip(parse_ema_specs(options.ema), cast(list[Denoiser], models), strict=True))
        self.cores = torch.get_num_threads()
        self.began = time.monotonic()
        self.losses: list[torch.Tensor] = []
        self.bad = 0

    def run(self) -> float:
        """Train to the end; the seconds it took. Interrupted or Preempted when a signal came first."""
        options, state = self.options, self.job.state
        self.status("running")
        first = state.images
        batches = ahead(self.job.batches.since(first))
        steps = training_steps(options, self.job, batches)
        try:
            with (
                closing(batches),
                closing(steps),
                self.console.progress(options.images, "images", options.command) as progress,
            ):
                for report in steps:
                    self.step(report, first, progress)
                    if self.stop.asked:
                        break
        except (BadFile, MissingInput) as error:  # a picture that cannot be read
            raise self.broken(error) from error
        except BaseException as error:
            with suppress(OSError, WriteFailed):
                self.status("interrupted" if isinstance(error, KeyboardInterrupt) else "failed")
            raise
        if state.images < options.images:
            self.pause()
        self.keep("finished")
        return time.monotonic() - self.began

    def step(self, report: Report, first: int, progress: Any) -> None:
        self.losses.append(report.loss)
        self.bad = 0 if report.finite else self.bad + 1
        if self.bad >= PATIENCE:
            self.keep("failed")
            raise Diverged(
                f"the last {PATIENCE} gradients were not finite; the weights before them are in {self.folder}",
                f"start again with a lower learning rate, --lr {self.options.lr / 3:.1g}, or with --grad-clip 1",
            )
        if self.due(report.images, LINES):
            loss = float(torch.stack(self.losses).mean())
            self.losses.clear()
            rate = (report.images - first) / (time.monotonic() - self.began)
            self.log(report, loss, rate)
            progress.update(report.images, loss=f"{loss:.4g}")
        if self.due(report.images, self.options.ema_snapshots):
            self.store(report.images)
        if self.due(report.images, self.options.snapshots):
            self.picture(report.images)
            if report.images < self.options.images:
                self.keep("running")

    def due(self, images: int, times: int) -> bool:
        """Whether this step crossed one of ``times`` equal parts of the run."""
        part, size = self.options.images / max(times, 1), self.options.batch
        return times > 0 and (images // part > (images - size) // part or images >= self.options.images)

    def log(self, report: Report, loss: float, rate: float) -> None:
        line = {
            "images": report.images,
            "loss": loss,
            "gradient": float(report.gradient),
            "ema_gap": float(self.job.state.average.gap(self.job.state.model)),
            "lr": report.rate,
            "images_per_second": round(rate, 2),
            "seconds": round(time.monotonic() - self.began, 2),
            "skipped": self.job.state.skipped,
        }
        runs.append(self.folder, line)

    def picture(self, images: int) -> None:
        """A sheet of samples of the averaged model, always of the same seeds."""
        header = current_header(self.job)
        seeds = range(max(header.num_classes, 8) * (4 if header.num_classes else 8))
        labels = labels_of(seeds, header.num_classes)
        model = LoadedModel(self.model, header, self.folder)
        # torch itself has one core in training
        made = draw(model, set_up_sampler(header), Noise(seeds), labels, self.cores)
        write_picture(self.folder / "samples" / f"{images:08d}.png", sheet(made, max(header.num_classes, 8)))

    def broken(self, error: BadFile | MissingInput) -> CmtoolError:
        """The message about a picture that ended the run, when what was learned is saved."""
        images, reason = self.job.state.images, f"{error.message} "
        if not images:
            self.status("failed", reason=reason)
            return error
        self.keep("failed", reason=reason)
        return type(error)(
            f"{error.message}; stopped at {images:,} of {self.options.images:,} images, all is saved in {self.folder}",
            f"mend it, then go on with: {resume_command(self.options.command, self.folder)}",
        )

    def status(self, word: str, **facts: Any) -> None:
        runs.write_status(self.folder, word, images=self.job.state.images, skipped=self.job.state.skipped, **facts)

    def keep(self, word: str, **facts: Any) -> None:
        """Save the checkpoint, the state to go on from, and how the run stands."""
        state = self.job.state
        for track, model in self.tracks.items():
            place = runs.average_path(self.folder, track.name) if model is not self.model else self.folder / CHECKPOINT
            save(place, model, self.header(track))
        save_state(self.folder, *pack(state))
        self.status(word, **facts)

    def store(self, images: int) -> None:
        """Checkpoints of the power averages as they are now, from which others can be rebuilt."""
        for track, model in self.tracks.items():
            if track.form == "power":
                place = runs.average_path(self.folder, track.name, images)
                save(place, model, self.header(track), DTYPES[self.options.ema_dtype])

    def header(self, track: EMASpec) -> Header:
        """As of this step: a method may change its sampling noise levels during training."""
        return replace(current_header(self.job), average={"ema": str(track)})

    def pause(self) -> None:
        self.keep("preempted" if self.stop.preempted else "interrupted")
        kind = Preempted if self.stop.preempted else Interrupted
        raise kind(
            f"stopped at {self.job.state.images:,} of {self.options.images:,} images; all is saved in {self.folder}",
            f"go on with: {resume_command(self.options.command, self.folder)}",
        )
