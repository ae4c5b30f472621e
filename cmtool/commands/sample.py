"""``sample``: images of a model, each a function of its own seed."""

import time

import numpy as np
import torch

from cmtool.commands.console import Console
from cmtool.commands.generate import in_batches, sheet
from cmtool.commands.guide import evaluations, guided, told
from cmtool.commands.models import class_index, describe, open_model
from cmtool.commands.plan import plan
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
    header, model = model.header, guided(model, path, options, console.warn)
    walk = plan(header, options)
    if options.grid:
        check_target(options.grid)
        if options.output == str(options.grid) == "-":
            raise UsageError("standard output takes the images or the grid", "write one of them to a file")
    seeds = options.seeds or Seeds([range(options.seed, options.seed + options.n)])
    klass = class_index(header, options.klass)
    shown, room, done = [], SHEET if len(header.shape) == 3 else len(seeds), 0
    began = time.monotonic()

    levels = ", ".join(f"{level:.4g}" for level in walk.levels)
    each = evaluations(walk, model)
    ahead = f"{each} network evaluations each" if each else "as many evaluations as it takes"
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
    seconds, made = time.monotonic() - began, round(walk.made / len(seeds), 1)
    if each is None:
        console.say(f"{made:g} network evaluations each")
    if options.grid:
        write_picture(options.grid, sheet(torch.cat(shown), columns(min(len(seeds), room), header.conditional)))
    document = {
        "model": describe(model, path),
        "images": len(seeds),
        "seeds": str(seeds),
        "evaluations": int(made) if made.is_integer() else made,
        "levels": walk.levels.tolist(),
        "guidance": told(options),
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
