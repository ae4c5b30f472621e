"""``sample``: images of a model, each a function of its own seed."""

import time

import numpy as np
import torch

from cmtool.commands.console import Console
from cmtool.commands.generate import in_batches, plan, sheet
from cmtool.commands.models import class_index, describe, open_model
from cmtool.errors import UsageError
from cmtool.files.images import open_writer
from cmtool.files.pictures import check_target, write_picture
from cmtool.settings import SampleOptions
from cmtool.training.devices import device, use_threads
from cmtool.values import Seeds

__all__ = ["run"]

SHEET = 100  # images at most on a grid


def run(options: SampleOptions, console: Console) -> None:
    """Draw images and write them as they come."""
    use_threads(options.threads)
    model, path = open_model(options.model, device(options.device), console, options.format, options.backbone)
    header = model.header
    walk = plan(header, options.steps, options.levels, options.solver)
    if options.grid:
        check_target(options.grid)
        if options.output == str(options.grid) == "-":
            raise UsageError("standard output takes the images or the grid", "write one of them to a file")
    seeds = options.seeds or Seeds([range(options.seed, options.seed + options.n)])
    klass = class_index(header, options.klass)
    shown, room, done = [], SHEET if len(header.shape) == 3 else len(seeds), 0
    began = time.monotonic()

    levels = ", ".join(f"{level:.4g}" for level in walk.levels)
    ahead = f"{walk.evaluations} network evaluations each" if walk.evaluations else "as many evaluations as it takes"
    console.say(f"{len(seeds):,} images, {ahead}, levels {levels}")
    with (
        open_writer(options.output, len(seeds), header.shape, header.conditional > 0) as writer,
        console.track(len(seeds), "images", "sample") as progress,
    ):
        for some, images, labels in in_batches(model, walk, seeds, options.batch, klass):
            writer.write(some, images, labels)
            if options.grid and done < room:
                shown.append(images[: room - done])
            done += len(some)
            progress.update(done)
    seconds, evaluations = time.monotonic() - began, round(walk.made / len(seeds), 1)
    if walk.evaluations is None:
        console.say(f"{evaluations:g} network evaluations each")
    if options.grid:
        write_picture(options.grid, sheet(torch.cat(shown), columns(min(len(seeds), room), header.conditional)))
    document = {
        "model": describe(model, path),
        "images": len(seeds),
        "seeds": str(seeds),
        "evaluations": int(evaluations) if evaluations.is_integer() else evaluations,
        "levels": walk.levels.tolist(),
        "output": options.output,
        "grid": options.grid and str(options.grid),
        "seconds": round(seconds, 3),
        "images_per_second": round(len(seeds) / seconds, 2),
    }
    if options.output != "-":
        console.result(document, options.output)


def columns(n: int, classes: int) -> int:
    """A column for each class where there are some, else about a square."""
    return classes if 1 < classes <= min(n, 20) else int(np.ceil(np.sqrt(n)))
