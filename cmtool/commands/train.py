"""``train-score``, ``distill`` and ``train-ct``: one command with three starts."""

import math
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import Any, cast

import torch

from cmtool.commands.console import Console
from cmtool.commands.shared.ranks import SilentConsole, end_together, voice_of
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
from cmtool.pipelines.distributed import (
    World,
    find_world,
    has_stray_rank,
    local_device,
    run_on_main,
    start_group,
    threads_of,
    wait_for_ranks,
)
from cmtool.pipelines.inputs import dataset_facts, kept_options, open_dataset
from cmtool.pipelines.model_evaluator import ModelEvaluator
from cmtool.pipelines.training import is_sharded, share_weights
from cmtool.pipelines.training_job import TrainingJob, build_training
from cmtool.settings import TrainOptions
from cmtool.settings.training import ALLOWED
from cmtool.training.devices import choose_device, micro_batch_size, use_threads
from cmtool.training.loop import LoopConfig, train

__all__ = ["run"]


def run(options: TrainOptions, console: Console) -> None:
    """Train, keeping a run directory; stop on a signal at the end of a step, with everything saved.

    Of several ranks the first one speaks and writes; all end together.
    """
    if remark := has_stray_rank():
        console.warn(remark)
    world = find_world()
    use_threads(threads_of(options.threads))
    if options.reproduce or options.dry_run:
        if world.main:
            only_look(options, console)
        return
    where = choose_device(local_device(options.device))
    with end_together(world):
        start_group(world, where)
        train_ranks(options, voice_of(world, console), world, where)


def only_look(options: TrainOptions, console: Console) -> None:
    """What writes nothing: the step of a capsule again, or what a run would cost."""
    found, where = find_run(options), choose_device(options.device)
    if options.reproduce:
        reproduce(options, console)
    elif found and is_done(options := check_unchanged(options, found), found):
        say_finished(options, found, console)
    else:
        job = assemble(options, found, console, where)
        if options.eval_interval:
            ModelEvaluator(options, job, console)  # says what would be wrong with it
        preview(options, job, console)


def train_ranks(options: TrainOptions, console: Console, world: World, where: torch.device) -> None:
    """What each rank of a run does, from its options to the last word."""
    place = run_on_main(world, lambda: str(find_run(options) or ""))
    found = Path(place) if place else None
    if found:
        options = check_unchanged(options, found)
        if run_on_main(world, lambda: is_done(options, found)):
            return run_on_main(world, lambda: say_finished(options, found, console))
    sharded = is_sharded(options, world)
    job = assemble(options, found, console, torch.device("cpu") if sharded else where)
    if sharded:
        share_weights(options, job, where)
    evaluator = ModelEvaluator(options, job, console) if options.eval_interval else None
    folder = found or Path(
        run_on_main(world, lambda: str(runs.create(options.run_dir, options.command, options.data["name"])))
    )
    if isinstance(console, SilentConsole):
        console.keep_in(folder)
    else:
        for remark in has_no_locks(folder):
            console.warn(remark)
    with runs.locked(folder) if world.main else nullcontext(), Stop() as stop:
        run_on_main(world, lambda: check_room(folder, RunSize.of(options, job).whole - size_below(folder)))
        training = TrainingRun(options, job, folder, console, stop, evaluator)
        if found:
            go_on(training, found)
        run_on_main(world, lambda: keep_inputs(options, folder, found, job.dataset))
        seconds = training.run()
    return run_on_main(world, lambda: finish(folder, options.command, console, seconds))


def say_finished(options: TrainOptions, folder: Path, console: Console) -> None:
    console.say(f"{folder} has finished already; to go on give more --images than {options.images:,}")
    finish(folder, options.command, console)


def assemble(options: TrainOptions, found: Path | None, console: Console, where: torch.device) -> TrainingJob:
    """Data, network and all else of a run, new or ``found``; the first rank opens the data before the others."""
    world = find_world()
    dataset = open_data(options, found, console) if world.main else None
    if found:
        run_on_main(world, lambda: check_data(dataset, found))
    run_on_main(world, lambda: None)
    dataset = open_data(options, found, console) if dataset is None else dataset
    wait_for_ranks(world)
    console.say(f"data: {dataset_facts(options.data['name'], dataset, options.conditional)}")
    job = build_training(options, where, dataset)
    check_header(job.header, cast(Denoiser, job.state.average.model))
    for remark in job.remarks:
        console.say(remark)
    ranks = "" if world.size == 1 else f", {world.size} ranks"
    size = f"{count_parameters(job):,} parameters on {where}, {torch.get_num_threads()} threads{ranks}"
    console.say(f"network: {job.header.backbone['name']}, {size}")
    return job


def count_parameters(job: TrainingJob) -> int:
    return sum(p.numel() for p in job.state.model.parameters())


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
        training.on_main(training.saver.renew_models)


def open_data(options: TrainOptions, folder: Path | None, console: Console) -> Any:
    """The data; MissingInput says how to name those of a run that have moved."""
    try:
        return open_dataset(options.data, console.say)
    except MissingInput as error:
        moved = f"if the data have moved: {resume_command(options.command, folder)} --data WHERE"
        raise MissingInput(error.message, moved if folder else error.hint) from error


def keep_inputs(options: TrainOptions, folder: Path, found: Path | None, dataset: Any) -> None:
    """The options, and what the data are, for when the run goes on."""
    keep_options(options, folder, found)
    write_inventory(folder, dataset)


def keep_options(options: TrainOptions, folder: Path, found: Path | None) -> None:
    """What the run goes on with when it is taken up; of one that was, its length and what is allowed alone change."""
    kept = kept_options(options)
    if found:
        stored = load_options(type(options), {}, configs=[folder / CONFIG], environment={})
        allowed = {key: vars(options)[key] for key in (name.replace("-", "_") for name in ALLOWED)}
        kept = replace(stored, images=options.images, **allowed)
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


def preview(options: TrainOptions, job: TrainingJob, console: Console) -> None:
    """What a run would cost: a few steps in memory of one process, nothing written."""
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
        "parameters": count_parameters(job),
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
