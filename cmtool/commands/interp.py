"""``interp``: from one image to another, or between the four corners of a grid, along great circles of noise."""

import hashlib
import json
from pathlib import Path
from typing import Any

from torch import Tensor

from cmtool.commands.console import Console
from cmtool.commands.shared.manifest import image_facts
from cmtool.commands.shared.preview import sheet
from cmtool.core.noise import SlerpNoise
from cmtool.errors import UsageError
from cmtool.evaluation.psnr_ssim import psnr
from cmtool.files.images import STREAM, check_output, check_stream, resuming_writer
from cmtool.files.output_check import check_place, made_by
from cmtool.files.picture_files import MOVING, moved_by, write_animation, write_picture
from cmtool.files.streams.manifest import ImageSettings
from cmtool.pipelines.inputs import class_index, describe_model, open_model
from cmtool.pipelines.interpolation import Endpoint, find_endpoints, labels_between
from cmtool.pipelines.sampling_pipeline import SamplingPipeline, draw
from cmtool.settings import InterpOptions
from cmtool.training.devices import choose_device, use_threads

__all__ = ["run"]


def run(options: InterpOptions, console: Console) -> None:
    """Draw the frames; a conditional model without --class changes class half way, so that the ends are samples."""
    words = [word for word in (options.a, options.b, options.c, options.d) if word is not None]
    check(options, words)
    check_place_of(options, words)
    use_threads(options.threads)
    loaded = open_model(options.model, choose_device(options.device), console, options.format, options.backbone)
    header = loaded.header
    check_suffix(options, header.shape)
    pipeline = SamplingPipeline.of(loaded, options, console)
    model, sampler = pipeline.model, pipeline.sampler
    if sampler.grid:
        console.say(f"sigmas {sampler.description}")
    ends = find_endpoints(words, model, sampler, options, class_index(header, options.klass), console)
    rows = (options.rows or options.frames) if len(ends) == 4 else 1
    blend = SlerpNoise([end.seed for end in ends], options.frames, rows, [end.noise for end in ends])
    labels = labels_between(ends, options.frames, rows) if header.num_classes else None
    classes = None if labels is None else labels.tolist()
    wanted = ImageSettings(range(len(blend)), classes, header.shape, frame_facts(pipeline, options, ends, rows))
    if is_stream(options.output):
        for remark in check_output(options.output, wanted, options.overwrite):
            console.warn(remark)
    images = draw(model, sampler, blend, labels)
    write(options, images, labels, wanted)
    document = {
        "model": describe_model(model),
        "ends": words,
        "frames": options.frames,
        "rows": rows,
        "nfe": pipeline.nfe,
        "returned": measure_inversion(ends, images, options.frames, console) or None,
        "output": options.output,
    }
    if options.output != STREAM:
        console.result(document, options.output)


def check(options: InterpOptions, words: list[str]) -> None:
    """UsageError for three ends, and for rows where there is no grid."""
    if len(words) == 3:
        raise UsageError("interp goes between two images or four", "give a fourth: cmtool interp 3 7 11 15")
    if options.rows is not None and len(words) == 2:
        raise UsageError("--rows is about a grid between four corners", "give four: cmtool interp 3 7 11 15")


def is_stream(output: str) -> bool:
    """Whether the frames are written one by one, as ``sample`` writes images."""
    return Path(output).suffix.lower() not in (".png", *MOVING)


def check_place_of(options: InterpOptions, words: list[str]) -> None:
    """UsageError where the frames would take the place of an end, or of what interp did not make; WriteFailed."""
    if is_stream(options.output):
        return
    if Path(options.output).is_dir():
        raise UsageError(f"{options.output} is a folder, and the frames are one picture", "name a file in it")
    moves = Path(options.output).suffix.lower() in MOVING
    inputs = [word for word in words if not word.isdigit()]
    ours = (moved_by if moves else made_by)("interp")
    check_place(options.output, [*inputs, options.model], overwrite=options.overwrite, ours=ours)


def frame_facts(pipeline: SamplingPipeline, options: InterpOptions, ends: list[Endpoint], rows: int) -> dict[str, Any]:
    """What a manifest says of the frames, as of images of ``sample``; with a digest of what they go between."""
    found, digest = image_facts(pipeline, options), hashlib.sha256(json.dumps([options.frames, rows]).encode())
    for end in ends:
        digest.update(str(end.seed).encode() if end.noise is None else end.noise.numpy().tobytes())
    return {**found, "ends": digest.hexdigest()[:16]}


def check_suffix(options: InterpOptions, shape: tuple[int, ...]) -> None:
    """UsageError, before anything is drawn, for a place that cannot take the frames."""
    suffix = Path(options.output).suffix.lower()
    if suffix in MOVING and len(shape) == 1:
        raise UsageError("points do not move", "write them as a picture, -o interp.png, or to an .npz file")
    if suffix not in (".png", *MOVING):
        check_stream(options.output, shape)


def measure_inversion(ends: list[Endpoint], images: Tensor, frames: int, console: Console) -> dict[str, Any]:
    """How near each image that was turned into noise comes back, PSNR in dB."""
    corners = [0, frames - 1, len(images) - frames, len(images) - 1]
    found = {}
    for end, corner in zip(ends, corners, strict=False):
        if end.picture is not None:
            found[end.name] = round(psnr(images[corner], end.picture), 2)
            console.say(f"{end.name} comes back at {found[end.name]:.1f} dB")
    return found


def write(options: InterpOptions, images: Tensor, labels: Tensor | None, wanted: ImageSettings) -> None:
    """A strip or grid, an animation, or a stream of frames."""
    suffix = Path(options.output).suffix.lower()
    if suffix in MOVING:
        write_animation(options.output, images.numpy(), options.fps, "interp")
    elif suffix == ".png":
        write_picture(options.output, sheet(images, options.frames), "interp")
    else:
        with resuming_writer(options.output, wanted, overwrite=options.overwrite) as (writer, places):
            if writer:
                some = list(places)
                writer.write(some, images[some], None if labels is None else labels[some])
