"""``sample``: images of a model, each a function of its own seed."""

import hashlib
import json
import os
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import cmtool
from cmtool.commands.console import Console
from cmtool.commands.preview import Gallery, render, sheet
from cmtool.commands.signals import STOP_SIGNALS, Stop
from cmtool.core.denoiser import Denoiser
from cmtool.core.guidance import Guided
from cmtool.errors import Preempted, UsageError, WriteFailed
from cmtool.files.atomic import end_of
from cmtool.files.header import Header
from cmtool.files.images import check_output, is_folder, resumable, resuming_writer
from cmtool.files.model_format import LoadedModel
from cmtool.files.output_check import check_place, made_by
from cmtool.files.picture_files import check_target, write_picture
from cmtool.files.streams.archive_writer import piece
from cmtool.files.streams.manifest import ImageSettings
from cmtool.pipelines.classes import class_rule
from cmtool.pipelines.distributed import has_stray_rank, launched_by, local_device, shard_of
from cmtool.pipelines.guidance import GuidedModel, apply_guidance, describe_guidance, nfe
from cmtool.pipelines.inputs import class_name, describe_model, open_model
from cmtool.pipelines.noise_setup import Drawn, edm_class, image_source, seeds_of
from cmtool.pipelines.sampler_setup import SamplerSetup, set_up_sampler
from cmtool.pipelines.sampling import labels_of
from cmtool.settings import SampleOptions
from cmtool.settings.sampling import SAMPLES, GenerationOptions
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
    header, model = loaded.header, apply_guidance(loaded, options, console.warn)
    walk = set_up_sampler(header, options)
    options = grid_path(options)
    check(options)
    seeds = seeds_of(options)
    rule = edm_class(model, options) or class_rule(header, options.klass, options.classes)
    shard, draw_images = shard_of(options.shard), image_source(model, walk, options, rule)
    labels = labels_of(seeds, header.num_classes, rule)
    names = header.classes if len(header.classes) == header.num_classes else ()
    listed = labels if labels is None else labels.tolist()
    wanted = ImageSettings(seeds, listed, header.shape, facts(model, walk, options), names)
    for remark in check_output(options.output, wanted, options.overwrite):
        console.warn(remark)
    mine = wanted.cut(*shard)
    gallery = Gallery(
        mine.seeds[: SHEET if len(header.shape) == 3 else len(mine)],
        lambda some: torch.cat([images for _, images, _ in draw_images(some)]),
    )
    began = time.monotonic()

    each = nfe(walk, model.model)
    ahead = f"{each} network evaluation{'s' * (each > 1)} each" if each else "as many evaluations as it takes"
    of = f" of class {class_name(header, rule)}" if isinstance(rule, int) else ""
    console.say(f"{len(mine):,} images{of}{parse_shard(shard)}{ranks()}, {ahead}, levels {walk.description}")
    done = fill(options, wanted, draw_images, gallery, console)
    seconds, made = time.monotonic() - began, round(walk.nfe_used / done, 1) if done else float(each or 0)
    if each is None and done:
        console.say(f"{made:g} network evaluations each")
    document = {
        "model": describe_model(model),
        "images": len(mine),
        "made": done,
        "seeds": str(seeds),
        "class": rule if isinstance(rule, int) else None,
        "shard": parse_shard(shard).removeprefix(", part ") or None,
        "nfe": int(made) if made.is_integer() else made,
        "sigmas": walk.sigmas.tolist(),
        "guidance": describe_guidance(options),
        "output": (output := count_written(options.output, shard)),
        "grid": options.grid and str(options.grid),
        "seconds": round(seconds, 3),
        "images_per_second": round(done / seconds, 2),
    }
    unwritten = None
    try:
        if len(mine):
            make_gallery(gallery, options, header, console, rule)
    except WriteFailed as error:  # of the sheet alone: the images are there
        unwritten = error
    if options.output != "-":
        if output != options.output:
            console.say(f"the process that ends last makes {options.output} of this and the other parts")
        console.result(document, output)
    if unwritten:
        raise unwritten


def fill(options: SampleOptions, wanted: ImageSettings, drawn: Drawn, gallery: Gallery, console: Console) -> int:
    """Draw and write what is missing of this shard; how many images that were. Preempted when a scheduler asks."""
    shard, done = shard_of(options.shard), 0
    mine = wanted.cut(*shard)
    stop = Stop(STOP_SIGNALS if resumable(options.output) else ())
    with stop, resuming_writer(options.output, wanted, *shard, options.overwrite) as (writer, places):
        if len(places) < len(mine):
            console.say(f"{len(mine) - len(places):,} of them are there already")
        with console.progress(len(places), "images", "sample") as progress:
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


def facts(loaded: LoadedModel[Denoiser | Guided], walk: SamplerSetup, options: GenerationOptions) -> dict[str, Any]:
    """What the manifest says of every image beside its seed and class; ``recipe`` is a digest of all that is left."""
    keys = ("solver", "sampler", "schedule", "process", "convention", "gamma", "guidance", "guidance_interval")
    recipe = {key: value for key, value in asdict(options).items() if key in keys}
    recipe |= {"cmtool": cmtool.__version__}
    if isinstance(options, SampleOptions) and options.noise != "cmtool":
        device = next(loaded.model.parameters()).device.type
        recipe |= {"noise": options.noise, "device": device}
        if options.noise != "edm":
            recipe |= {"seed": options.seed, "n": options.n, "batch": options.batch}
    if isinstance(loaded, GuidedModel):
        recipe["guide"] = loaded.guide.sha256
    digest = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()
    return {"sigmas": walk.sigmas.tolist(), "model": loaded.header.sha256, "recipe": digest[:16]}


def parse_shard(shard: tuple[int, int]) -> str:
    """``, part 3/8``, or nothing where there is one part."""
    return "" if shard[1] == 1 else f", part {shard[0]}/{shard[1]}"


def ranks() -> str:
    """`` (RANK=0 of WORLD_SIZE=2)`` where it is these that make this process one of several."""
    if not launched_by() or os.environ.get("WORLD_SIZE", "1") == "1":
        return ""
    return f" (RANK={os.environ.get('RANK', '0')} of WORLD_SIZE={os.environ['WORLD_SIZE']})"


def count_written(output: str, shard: tuple[int, int]) -> str:
    """Where the images are: the file of this part while that of all parts is not there."""
    if shard[1] == 1 or is_folder(output) or os.path.exists(output):
        return output
    return str(piece(end_of(output), *shard))


def make_gallery(gallery: Gallery, options: SampleOptions, header: Header, console: Console, rule: Any) -> None:
    """The sheet of the first images, and the picture in the terminal."""
    if options.grid:
        labels = labels_of(gallery.seeds, header.num_classes, rule)
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
