"""``train-score``, ``distill`` and ``train-ct``: one command with three starts."""

import math
import time
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import Any, cast

import torch

from cmtool.commands.console import Console
from cmtool.commands.signals import Stop
from cmtool.commands.training.capsule import reproduce
from cmtool.commands.training.disk_space import RunSize, check_room, size_below
from cmtool.commands.training.numerics import changed_numerics, numerics
from cmtool.commands.training.resume import (
    check_data,
    check_unchanged,
    find_run,
    is_done,
    resume_command,
    resume_run,
)
from cmtool.commands.training.training_run import TrainingRun
from cmtool.core.denoiser import Denoiser
from cmtool.errors import MissingInput
from cmtool.files import runs
from cmtool.files.atomic import has_no_locks, write_bytes
from cmtool.files.checkpoint import check_header
from cmtool.files.data_fingerprint import write_inventory
from cmtool.files.header import read_header
from cmtool.files.runs import CHECKPOINT
from cmtool.options.load import dump_options, load_options
from cmtool.options.stored_run import CONFIG
from cmtool.pipelines.distributed import has_stray_rank
from cmtool.pipelines.inputs import dataset_facts, kept_options, open_dataset
from cmtool.pipelines.model_evaluator import ModelEvaluator
from cmtool.pipelines.training_job import TrainingJob, build_training
from cmtool.settings import TrainOptions
from cmtool.training.devices import choose_device, micro_batch_size, use_threads
from cmtool.training.loop import LoopConfig, train

__all__ = ["run"]


def run(options: TrainOptions, console: Console) -> None:
    """Train, keeping a run directory; stop on a signal at the end of a step, with everything saved."""
    if remark := has_stray_rank():
        console.warn(remark)
    use_threads(options.threads)
    if options.reproduce:
        return reproduce(options, console)
    where = choose_device(options.device)
    found = find_run(options)
    if found:
        options = check_unchanged(options, found)
        if is_done(options, found):
            console.say(f"{found} has finished already; to go on give more --images than {options.images:,}")
            return finish(found, options.command, console)
    dataset = open_data(options, found, console)
    console.say(f"data: {dataset_facts(options.data['name'], dataset, options.conditional)}")
    if found:
        check_data(dataset, found)
    job = build_training(options, where, dataset)
    check_header(job.header, cast(Denoiser, job.state.average.model))
    parameters = sum(p.numel() for p in job.state.model.parameters())
    for remark in job.remarks:
        console.say(remark)
    size = f"{parameters:,} parameters on {where}, {torch.get_num_threads()} threads"
    console.say(f"network: {job.header.backbone['name']}, {size}")
    evaluator = ModelEvaluator(options, job, console) if options.eval_interval else None
    if options.dry_run:
        return preview(options, job, console, parameters)

    folder = found or runs.create(options.run_dir, options.command, options.data["name"])
    for remark in has_no_locks(folder):
        console.warn(remark)
    with runs.locked(folder), Stop() as stop:
        check_room(folder, RunSize.of(options, job).whole - size_below(folder))
        training = TrainingRun(options, job, folder, console, stop, evaluator)
        if found:
            go_on(training, found)
        keep_options(options, folder, found)
        write_inventory(folder, dataset)
        seconds = training.run()
    return finish(folder, options.command, console, seconds)


def go_on(training: TrainingRun, folder: Path) -> None:
    """Put a run where it was saved, and say so."""
    console, state = training.console, training.job.state
    scalars = resume_run(training.job, folder, console.warn)
    training.metrics.load_state(scalars.get("metrics", {}))
    training.metrics.restart_clock()
    console.say(f"going on with {folder} at {state.images:,} images")
    if changed := changed_numerics(scalars.get("numerics", {}), numerics(training.options, training.job)):
        bits = "the weights will not be, to the last bit, those of a run that was not stopped"
        console.warn(f"{folder} goes on with other numerics, {'; '.join(changed)}: {bits}")
    if scalars:
        training.saver.renew_models()


def open_data(options: TrainOptions, folder: Path | None, console: Console) -> Any:
    """The data; MissingInput says how to name those of a run that have moved."""
    try:
        return open_dataset(options.data, console.say)
    except MissingInput as error:
        moved = f"if the data have moved: {resume_command(options.command, folder)} --data WHERE"
        raise MissingInput(error.message, moved if folder else error.hint) from error


def keep_options(options: TrainOptions, folder: Path, found: Path | None) -> None:
    """What the run goes on with when it is taken up; of one that was, its length and what is allowed alone change."""
    kept = kept_options(options)
    if found:
        stored = load_options(type(options), {}, configs=[folder / CONFIG], environment={})
        kept = replace(stored, images=options.images, micro_batch=options.micro_batch, precision=options.precision)
    write_bytes(folder / CONFIG, dump_options(kept).encode())


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
    steps, size, began = 3, RunSize.of(options, job), time.monotonic()
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
        "checkpoint_bytes": size.checkpoint,
        "state_bytes": size.state,
        "run_bytes": size.whole,
    }
    text = "\n".join(f"{key}: {value}" for key, value in document.items())
    console.result(document, text + "\nnothing was written; leave out --dry-run to train")
