"""``sample``: images of a model, each a function of its own seed."""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import cmtool
from cmtool.commands.classes import class_rule
from cmtool.commands.console import Console
from cmtool.commands.gallery import Gallery
from cmtool.commands.generate import in_batches, labels_of, sheet
from cmtool.commands.guide import evaluations, guided, told
from cmtool.commands.models import class_name, describe, open_model
from cmtool.commands.plan import Plan, plan
from cmtool.commands.shards import launched, local_device, shard_of, stray
from cmtool.commands.show import shown
from cmtool.commands.stopping import POLITE, Stop
from cmtool.core.guidance import Guided, Unlabelled
from cmtool.errors import Preempted, UsageError, WriteFailed
from cmtool.files.atomic import end_of
from cmtool.files.header import Header
from cmtool.files.images import is_folder
from cmtool.files.pictures import check_target, write_picture
from cmtool.files.places import check_place, made_by
from cmtool.files.streams.growing import piece
from cmtool.files.streams.manifest import Wanted
from cmtool.files.streams.resuming import check_output, resumable, resuming
from cmtool.settings import SampleOptions
from cmtool.settings.sampling import SAMPLES, WalkOptions
from cmtool.training.devices import device, use_threads
from cmtool.values import Seeds

__all__ = ["run"]

Drawn = Callable[[Sequence[int]], Iterable[tuple[list[int], torch.Tensor, torch.Tensor | None]]]

SHEET = 100  # images at most on a grid


def run(options: SampleOptions, console: Console) -> None:
    """Draw the images that are not there yet, and write them as they come."""
    if remark := stray():
        console.warn(remark)
    use_threads(options.threads)
    model, path = open_model(
        options.model, device(local_device(options.device)), console, options.format, options.backbone
    )
    header, model = model.header, guided(model, path, options, console.warn)
    walk = plan(header, options)
    options = beside(options)
    check(options)
    seeds = options.seeds or Seeds([range(options.seed, options.seed + options.n)])
    rule, shard = class_rule(header, options.klass, options.classes), shard_of(options.shard)
    labels = labels_of(seeds, header.conditional, rule)
    names = header.classes if len(header.classes) == header.conditional else ()
    listed = labels if labels is None else labels.tolist()
    wanted = Wanted(seeds, listed, header.shape, facts(model, walk, options), names)
    for remark in check_output(options.output, wanted, options.overwrite):
        console.warn(remark)
    mine = wanted.cut(*shard)
    gallery = Gallery(
        mine.seeds[: SHEET if len(header.shape) == 3 else len(mine)],
        lambda some: torch.cat([images for _, images, _ in in_batches(model, walk, some, options.batch, rule)]),
    )
    began = time.monotonic()

    each = evaluations(walk, model)
    ahead = f"{each} network evaluation{'s' * (each > 1)} each" if each else "as many evaluations as it takes"
    of = f" of class {class_name(header, rule)}" if isinstance(rule, int) else ""
    console.say(f"{len(mine):,} images{of}{part(shard)}{ranks()}, {ahead}, levels {walk.told}")
    done = fill(options, wanted, lambda some: in_batches(model, walk, some, options.batch, rule), gallery, console)
    seconds, made = time.monotonic() - began, round(walk.made / done, 1) if done else float(each or 0)
    if each is None and done:
        console.say(f"{made:g} network evaluations each")
    document = {
        "model": describe(model, path),
        "images": len(mine),
        "made": done,
        "seeds": str(seeds),
        "class": rule if isinstance(rule, int) else None,
        "shard": part(shard).removeprefix(", part ") or None,
        "evaluations": int(made) if made.is_integer() else made,
        "levels": walk.levels.tolist(),
        "guidance": told(options),
        "output": (output := written(options.output, shard)),
        "grid": options.grid and str(options.grid),
        "seconds": round(seconds, 3),
        "images_per_second": round(done / seconds, 2),
    }
    unwritten = None
    try:
        if len(mine):
            look(gallery, options, header, console, rule)
    except WriteFailed as error:  # of the sheet alone: the images are there
        unwritten = error
    if options.output != "-":
        if output != options.output:
            console.say(f"the process that ends last makes {options.output} of this and the other parts")
        console.result(document, output)
    if unwritten:
        raise unwritten


def fill(options: SampleOptions, wanted: Wanted, drawn: Drawn, gallery: Gallery, console: Console) -> int:
    """Draw and write what is missing of this shard; how many images that were. Preempted when a scheduler asks."""
    shard, done = shard_of(options.shard), 0
    mine = wanted.cut(*shard)
    stop = Stop(POLITE if resumable(options.output) else ())
    with stop, resuming(options.output, wanted, *shard, options.overwrite) as (writer, places):
        if len(places) < len(mine):
            console.say(f"{len(mine) - len(places):,} of them are there already")
        with console.track(len(places), "images", "sample") as progress:
            for some, images, labels in drawn([mine.seeds[i] for i in places]):
                assert writer
                writer.write(some, images, labels)
                gallery.add(some, images)
                done += len(some)
                progress.update(done)
                if stop.asked and done < len(places):
                    left = f"stopped with {len(places) - done:,} images to go; what was made is kept"
                    raise Preempted(left, "the same command makes the rest")
    return done


def beside(options: SampleOptions) -> SampleOptions:
    """With a sheet beside the default folder, so that there is something to look at when nothing was asked for."""
    asked = options.grid or options.output != SAMPLES or shard_of(options.shard)[1] > 1
    return options if asked else replace(options, grid=Path(f"{SAMPLES}.png"))


def check(options: SampleOptions) -> None:
    """What is wrong about the places of the output is said before anything is computed."""
    if options.grid:
        check_target(options.grid)
        if options.output == str(options.grid) or Path(options.output).absolute() == options.grid.absolute():
            place = "standard output" if options.output == "-" else options.output
            raise UsageError(f"{place} takes the images or the grid", "write one of them to a file")
        check_place(options.grid, overwrite=options.overwrite, ours=made_by("sample"))


def facts(model: Any, walk: Plan, options: WalkOptions) -> dict[str, Any]:
    """What the manifest says of every image beside its seed and class; ``recipe`` is a digest of all that is left."""
    keys = ("solver", "spacing", "process", "convention", "gamma", "guidance", "guidance_interval")
    recipe = {key: value for key, value in asdict(options).items() if key in keys}
    recipe |= {"cmtool": cmtool.__version__}
    if isinstance(model, Guided):
        weak = model.weak.model if isinstance(model.weak, Unlabelled) else model.weak
        recipe["guide"] = weak.header.sha256
    digest = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()
    return {"levels": walk.levels.tolist(), "model": model.header.sha256, "recipe": digest[:16]}


def part(shard: tuple[int, int]) -> str:
    """``, part 3/8``, or nothing where there is one part."""
    return "" if shard[1] == 1 else f", part {shard[0]}/{shard[1]}"


def ranks() -> str:
    """`` (RANK=0 of WORLD_SIZE=2)`` where it is these that make this process one of several."""
    if not launched() or os.environ.get("WORLD_SIZE", "1") == "1":
        return ""
    return f" (RANK={os.environ.get('RANK', '0')} of WORLD_SIZE={os.environ['WORLD_SIZE']})"


def written(output: str, shard: tuple[int, int]) -> str:
    """Where the images are: the file of this part while that of all parts is not there."""
    if shard[1] == 1 or is_folder(output) or os.path.exists(output):
        return output
    return str(piece(end_of(output), *shard))


def look(gallery: Gallery, options: SampleOptions, header: Header, console: Console, rule: Any) -> None:
    """The sheet of the first images, and the picture in the terminal."""
    if options.grid:
        labels = labels_of(gallery.seeds, header.conditional, rule)
        names = None if labels is None else [name(header, label) for label in labels.tolist()]
        wide = columns(len(gallery.seeds), header.conditional)
        write_picture(options.grid, sheet(gallery.images(), wide, names), "sample")
    if console.terminal if options.show is None else options.show:
        console.draw(shown(gallery.images().numpy()))


def name(header: Header, label: int) -> str:
    return header.classes[label] if label < len(header.classes) else str(label)


def columns(n: int, classes: int) -> int:
    """A column for each class where there are some, else about a square."""
    return classes if 1 < classes <= min(n, 20) else int(np.ceil(np.sqrt(n)))
