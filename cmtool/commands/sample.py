"""``sample``: images of a model, each a function of its own seed."""

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cmtool.commands.console import Console
from cmtool.commands.shared.manifest import image_facts
from cmtool.commands.shared.preview import Gallery, render, sheet
from cmtool.commands.signals import STOP_SIGNALS, Stop
from cmtool.errors import Preempted, UsageError, WriteFailed
from cmtool.files.atomic import end_of
from cmtool.files.header import Header
from cmtool.files.images import check_output, is_folder, resumable, resuming_writer
from cmtool.files.output_check import check_place, made_by
from cmtool.files.picture_files import check_target, write_picture
from cmtool.files.streams.archive_writer import shard_path
from cmtool.files.streams.manifest import ImageSettings
from cmtool.pipelines.distributed import find_world, has_stray_rank, local_device, shard_of
from cmtool.pipelines.guidance import describe_guidance
from cmtool.pipelines.inputs import class_name, describe_model, open_model
from cmtool.pipelines.noise_setup import seeds_of
from cmtool.pipelines.sampling import sampling_pipeline
from cmtool.pipelines.sampling_pipeline import SamplingPipeline
from cmtool.settings import SampleOptions
from cmtool.settings.sampling import SAMPLES
from cmtool.training.devices import choose_device, use_threads

__all__ = ["run"]

SHEET = 100  # images at most on a grid


def run(options: SampleOptions, console: Console) -> None:
    """Draw the images that are not there yet, and write them as they come."""
    if remark := has_stray_rank():
        console.warn(remark)
    use_threads(options.threads)
    where = choose_device(local_device(options.device))
    loaded = open_model(options.model, where, console, options.format, options.backbone)
    pipeline = sampling_pipeline(loaded, options, console)
    options = grid_path(options)
    check(options)
    wanted = image_settings(pipeline, options)
    for remark in check_output(options.output, wanted, options.overwrite):
        console.warn(remark)
    mine = wanted.cut(*shard_of(options.shard))
    gallery = Gallery(
        mine.seeds[: SHEET if len(wanted.shape) == 3 else len(mine)],
        lambda some: torch.cat([batch.images for batch in pipeline(some)]),
    )
    began, each = time.monotonic(), pipeline.nfe
    console.say(announce(pipeline, options, len(mine)))
    done = fill(options, wanted, pipeline, gallery, console)
    if each is None and done:
        console.say(f"{nfe_of(pipeline, done):g} NFE each")
    document = describe(pipeline, options, wanted, done, time.monotonic() - began)
    finish(options, pipeline, gallery, document, console)


def image_settings(pipeline: SamplingPipeline, options: SampleOptions) -> ImageSettings:
    """What all images of all parts are: their seeds, classes and what they depend on."""
    header = pipeline.model.header
    seeds = seeds_of(options)
    names = header.classes if len(header.classes) == header.num_classes else ()
    labels = pipeline.labels(seeds)
    listed = labels if labels is None else labels.tolist()
    return ImageSettings(seeds, listed, header.shape, image_facts(pipeline, options), names)


def announce(pipeline: SamplingPipeline, options: SampleOptions, n: int) -> str:
    """What is about to be drawn, in one line."""
    each = pipeline.nfe
    ahead = f"{each} NFE each" if each else "as many NFE as it takes"
    rule = pipeline.classes
    of = f" of class {class_name(pipeline.model.header, rule)}" if isinstance(rule, int) else ""
    part = parse_shard(shard_of(options.shard))
    return f"{n:,} images{of}{part}{ranks()}, {ahead}, sigmas {pipeline.sampler.description}"


def fill(
    options: SampleOptions, wanted: ImageSettings, pipeline: SamplingPipeline, gallery: Gallery, console: Console
) -> int:
    """Draw and write what is missing of this shard; how many images that were. Preempted when a scheduler asks."""
    shard, done = shard_of(options.shard), 0
    mine = wanted.cut(*shard)
    stop = Stop(STOP_SIGNALS if resumable(options.output) else ())
    with stop, resuming_writer(options.output, wanted, *shard, options.overwrite) as (writer, places):
        if len(places) < len(mine):
            console.say(f"{len(mine) - len(places):,} of them are there already")
        with console.progress(len(places), "images", "sample") as progress:
            for batch in pipeline([mine.seeds[i] for i in places]):
                assert writer
                writer.write(batch.seeds, batch.images, batch.labels)
                gallery.add(batch.seeds, batch.images)
                done += len(batch.seeds)
                progress.update(done)
                if stop.asked and done < len(places):
                    left = f"stopped with {len(places) - done:,} images to go; what was made is kept"
                    raise Preempted(left, "the same command makes the rest")
    return done


def nfe_of(pipeline: SamplingPipeline, done: int) -> float:
    """NFE of each image, as they were counted where any was made."""
    return round(pipeline.sampler.nfe_used / done, 1) if done else float(pipeline.nfe or 0)


def describe(
    pipeline: SamplingPipeline, options: SampleOptions, wanted: ImageSettings, done: int, seconds: float
) -> dict[str, Any]:
    """The document of the result."""
    shard, rule, made = shard_of(options.shard), pipeline.classes, nfe_of(pipeline, done)
    return {
        "model": describe_model(pipeline.model),
        "images": len(wanted.cut(*shard)),
        "made": done,
        "seeds": str(wanted.seeds),
        "class": rule if isinstance(rule, int) else None,
        "shard": parse_shard(shard).removeprefix(", part ") or None,
        "nfe": int(made) if made.is_integer() else made,
        "sigmas": pipeline.sampler.sigmas.tolist(),
        "guidance": describe_guidance(options),
        "output": count_written(options.output, shard),
        "grid": options.grid and str(options.grid),
        "seconds": round(seconds, 3),
        "images_per_second": round(done / seconds, 2),
    }


def finish(
    options: SampleOptions, pipeline: SamplingPipeline, gallery: Gallery, document: dict[str, Any], console: Console
) -> None:
    """Draw the sheet and say what was made; WriteFailed, after that, where the sheet alone could not be written."""
    unwritten = None
    try:
        if gallery.seeds:
            make_gallery(gallery, options, pipeline, console)
    except WriteFailed as error:  # of the sheet alone: the images are there
        unwritten = error
    if options.output != "-":
        if document["output"] != options.output:
            console.say(f"the process that ends last makes {options.output} of this and the other parts")
        console.result(document, document["output"])
    if unwritten:
        raise unwritten


def grid_path(options: SampleOptions) -> SampleOptions:
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


def parse_shard(shard: tuple[int, int]) -> str:
    """``, part 3/8``, or nothing where there is one part."""
    return "" if shard[1] == 1 else f", part {shard[0]}/{shard[1]}"


def ranks() -> str:
    """`` (rank 0 of 2)`` where a launcher makes this process one of several."""
    world = find_world()
    return "" if world.size == 1 else f" (rank {world.rank} of {world.size})"


def count_written(output: str, shard: tuple[int, int]) -> str:
    """Where the images are: the file of this part while that of all parts is not there."""
    if shard[1] == 1 or is_folder(output) or os.path.exists(output):
        return output
    return str(shard_path(end_of(output), *shard))


def make_gallery(gallery: Gallery, options: SampleOptions, pipeline: SamplingPipeline, console: Console) -> None:
    """The sheet of the first images, and the picture in the terminal."""
    header = pipeline.model.header
    if options.grid:
        labels = pipeline.labels(gallery.seeds)
        names = None if labels is None else [name(header, label) for label in labels.tolist()]
        wide = columns(len(gallery.seeds), header.num_classes)
        write_picture(options.grid, sheet(gallery.images(), wide, names), "sample")
    if console.terminal if options.show is None else options.show:
        console.draw(render(gallery.images().numpy()))


def name(header: Header, label: int) -> str:
    return header.classes[label] if label < len(header.classes) else str(label)


def columns(n: int, classes: int) -> int:
    """A column for each class where there are some, else about a square."""
    return classes if 1 < classes <= min(n, 20) else int(np.ceil(np.sqrt(n)))
