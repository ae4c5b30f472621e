"""``train-score``, ``distill`` and ``train-ct``: one command with three starts."""

import math
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from cmtool.commands.assemble import Job, assemble
from cmtool.commands.console import Console
from cmtool.commands.generate import draw, labels_of, plan, sheet
from cmtool.commands.stopping import Stop
from cmtool.core.noise import Noise
from cmtool.errors import Diverged, Interrupted, Preempted, UsageError
from cmtool.files import runs
from cmtool.files.atomic import write_bytes
from cmtool.files.checkpoint import save
from cmtool.files.pictures import write_picture
from cmtool.files.state import load_state, save_state
from cmtool.options import dump, load
from cmtool.settings import TrainOptions
from cmtool.training.batches import ahead
from cmtool.training.devices import device, precision, use_threads
from cmtool.training.loop import Report, train
from cmtool.training.optimisers import learning_rate
from cmtool.training.snapshot import pack, unpack

__all__ = ["run"]

LINES = 200  # of metrics.jsonl in a whole run
PATIENCE = 5  # steps in a row without a finite gradient
FREE = {
    "device",
    "threads",
    "resume",
    "run",
    "dry_run",
    "snapshots",
    "precision",
    "micro_batch",
}  # may change on resume


def run(options: TrainOptions, console: Console) -> None:
    """Train, keeping a run directory; stop on a signal at the end of a step, with everything saved."""
    use_threads(options.threads)
    where = device(options.device)
    if options.resume:
        check_unchanged(options)
    job = assemble(options, where)
    parameters = sum(p.numel() for p in job.state.model.parameters())
    console.say(f"data: {options.data['name']}, {len(job.dataset):,} of {'x'.join(map(str, job.dataset.shape))}")
    console.say(f"network: {options.command}, {parameters:,} parameters on {where}, {torch.get_num_threads()} threads")
    if options.dry_run:
        preview(options, job, console, parameters)
        return

    folder = options.resume or runs.create(options.run, options.command, options.data["name"])
    with runs.locked(folder), Stop() as stop:
        if options.resume:
            unpack(job.state, *load_state(folder))
            runs.rewind(folder, job.state.images)
            console.say(f"going on with {folder} at {job.state.images:,} images")
        else:
            write_bytes(folder / "config.yaml", dump(replace(options, run=None, resume=None, dry_run=False)).encode())
        Walk(options, job, folder, console, stop).run(precision(options.precision, where))


def check_unchanged(options: TrainOptions) -> None:
    """A run goes on with what it began with; UsageError names what differs."""
    assert options.resume
    stored = load(type(options), {}, configs=[options.resume / "config.yaml"], environment={})
    changed = [k for k, v in vars(options).items() if k not in FREE and getattr(stored, k) != v]
    if changed:
        raise UsageError(
            f"{options.resume} was started with another {' and another '.join(changed)}",
            "leave these options out, or start a new run from the checkpoint: cmtool train-ct --init",
        )


def preview(options: TrainOptions, job: Job, console: Console, parameters: int) -> None:
    """What a run would cost: a few steps in memory, nothing written."""
    steps, began = 3, time.monotonic()
    for _ in train(job.state, job.batches.since(0), steps * options.batch, lambda n: 0.0, micro=options.micro_batch):
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
        "state_bytes": 16 * parameters,
    }
    text = "\n".join(f"{key}: {value}" for key, value in document.items())
    console.result(document, text + "\nnothing was written; leave out --dry-run to train")


class Walk:
    """The steps of one run, and what is written and said on the way."""

    def __init__(self, options: TrainOptions, job: Job, folder: Path, console: Console, stop: Stop):
        self.options, self.job, self.folder, self.console, self.stop = options, job, folder, console, stop
        self.began, self.seconds = time.monotonic(), 0.0
        self.losses: list[torch.Tensor] = []
        self.bad = 0

    def run(self, autocast: Any) -> None:
        options, state = self.options, self.job.state
        runs.write_status(self.folder, "running", images=state.images)
        first = state.images
        steps = train(
            state,
            ahead(self.job.batches.since(state.images)),
            options.images,
            lambda n: learning_rate(options.lr, n, options.images, options.warmup, options.decay),
            options.seed,
            options.clip,
            options.micro_batch,
            autocast,
        )
        try:
            with self.console.track(options.images, "images", options.command) as progress:
                for report in steps:
                    self.step(report, first, progress)
        except BaseException:
            with suppress(OSError):
                runs.write_status(self.folder, "failed", images=state.images)
            raise
        self.finish()

    def step(self, report: Report, first: int, progress: Any) -> None:
        self.losses.append(report.loss)
        self.bad = 0 if report.finite else self.bad + 1
        if self.bad >= PATIENCE:
            self.keep("failed")
            raise Diverged(
                f"the last {PATIENCE} gradients were not finite; the state before them is in {self.folder}",
                f"lower the learning rate: --lr {self.options.lr / 3:.1g}, or clip gradients: --clip 1",
            )
        if self.due(report.images, LINES):
            loss = float(torch.stack(self.losses).mean())
            self.losses.clear()
            rate = (report.images - first) / (time.monotonic() - self.began)
            self.log(report, loss, rate)
            progress.update(report.images, loss=f"{loss:.4g}")
        if self.due(report.images, self.options.snapshots):
            self.picture(report.images)
        if self.stop.asked and report.images < self.options.images:
            self.pause()

    def due(self, images: int, times: int) -> bool:
        """Whether this step crossed one of ``times`` equal parts of the run."""
        part, size = self.options.images / max(times, 1), self.options.batch
        return times > 0 and (images // part > (images - size) // part or images >= self.options.images)

    def log(self, report: Report, loss: float, rate: float) -> None:
        line = {
            "images": report.images,
            "loss": loss,
            "gradient": float(report.gradient),
            "lr": report.rate,
            "images_per_second": round(rate, 2),
            "seconds": round(time.monotonic() - self.began, 2),
            "skipped": self.job.state.skipped,
        }
        runs.append(self.folder, line)

    def picture(self, images: int) -> None:
        """A sheet of samples of the averaged model, always of the same seeds."""
        model, header = self.job.state.average.model, self.job.header
        model.header = header
        seeds = range(max(header.conditional, 8) * (4 if header.conditional else 8))
        made = draw(model, plan(header), Noise(seeds), labels_of(seeds, header.conditional))
        write_picture(self.folder / "samples" / f"{images:08d}.png", sheet(made, max(header.conditional, 8)))

    def keep(self, status: str) -> Path:
        """The checkpoint, the state to go on from, and the word for how the run stands."""
        state, path = self.job.state, self.folder / "model.safetensors"
        save(path, state.average.model, replace(self.job.header, images=state.images))
        save_state(self.folder, *pack(state))
        runs.write_status(self.folder, status, images=state.images)
        return path

    def pause(self) -> None:
        self.keep("preempted" if self.stop.preempted else "interrupted")
        kind = Preempted if self.stop.preempted else Interrupted
        raise kind(
            f"stopped at {self.job.state.images:,} of {self.options.images:,} images; all is saved in {self.folder}",
            f"go on with: cmtool {self.options.command} --resume {self.folder}",
        )

    def finish(self) -> None:
        path, state = self.keep("finished"), self.job.state
        seconds = time.monotonic() - self.began
        document = {
            "command": self.options.command,
            "run": str(self.folder),
            "checkpoint": str(path),
            "kind": self.job.header.kind,
            "images": state.images,
            "skipped": state.skipped,
            "seconds": round(seconds, 2),
        }
        self.console.say(f"{state.images:,} images in {seconds:.0f} s; sample it with: cmtool sample --model {path}")
        self.console.result(document, str(path))
