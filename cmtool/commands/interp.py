"""``interp``: from one image to another, or between the four corners of a grid, along great circles of noise."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cmtool.commands.console import Console
from cmtool.commands.ends import End, ends_of
from cmtool.commands.generate import draw, sheet
from cmtool.commands.guide import evaluations, guided
from cmtool.commands.models import class_index, describe, open_model
from cmtool.commands.plan import plan
from cmtool.core.noise import Blend
from cmtool.errors import UsageError
from cmtool.evaluation.similarity import psnr
from cmtool.files.animation import MOVING, write_animation
from cmtool.files.images import STREAM, check_stream, open_writer
from cmtool.files.pictures import write_picture
from cmtool.settings import InterpOptions
from cmtool.training.devices import device, use_threads

__all__ = ["run"]


def run(options: InterpOptions, console: Console) -> None:
    """Draw the frames; a conditional model without --class changes class half way, so that the ends are samples."""
    words = [word for word in (options.a, options.b, options.c, options.d) if word is not None]
    check(options, words)
    use_threads(options.threads)
    model, path = open_model(options.model, device(options.device), console, options.format, options.backbone)
    check_output(options, model.header.shape)
    header, model = model.header, guided(model, path, options, console.warn)
    walk = plan(header, options)
    if walk.grid:
        console.say(f"levels {walk.told}")
    ends = ends_of(words, model, walk, options, class_index(header, options.klass), console)
    rows = (options.rows or options.frames) if len(ends) == 4 else 1
    blend = Blend([end.seed for end in ends], options.frames, rows, [end.noise for end in ends])
    labels = labels_between(ends, options.frames, rows) if header.conditional else None
    images = draw(model, walk, blend, labels)
    write(options, images, labels)
    document = {
        "model": describe(model, path),
        "ends": words,
        "frames": options.frames,
        "rows": rows,
        "evaluations": evaluations(walk, model),
        "returned": returned(ends, images, options.frames, console) or None,
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


def check_output(options: InterpOptions, shape: tuple[int, ...]) -> None:
    """UsageError, before anything is drawn, for a place that cannot take the frames."""
    suffix = Path(options.output).suffix.lower()
    if suffix in MOVING and len(shape) == 1:
        raise UsageError("points do not move", "write them as a picture, -o interp.png, or to an .npz file")
    if suffix not in (".png", *MOVING):
        check_stream(options.output, shape)


def labels_between(ends: list[End], frames: int, rows: int) -> Tensor:
    """The class of every frame, int64 [rows frames]: that of the nearest end."""
    labels = torch.tensor([end.label for end in ends]).view(-1, 2)
    across = (torch.arange(frames) * 2 >= frames).long()
    down = (torch.arange(rows) * 2 >= rows).long() if len(labels) == 2 else torch.zeros(1, dtype=torch.long)
    return labels[down][:, across].flatten()


def returned(ends: list[End], images: Tensor, frames: int, console: Console) -> dict[str, Any]:
    """How near each image that was turned into noise comes back, PSNR in dB."""
    corners = [0, frames - 1, len(images) - frames, len(images) - 1]
    found = {}
    for end, corner in zip(ends, corners, strict=False):
        if end.picture is not None:
            found[end.name] = round(psnr(images[corner], end.picture), 2)
            console.say(f"{end.name} comes back at {found[end.name]:.1f} dB")
    return found


def write(options: InterpOptions, images: Tensor, labels: Tensor | None) -> None:
    """A strip or grid, an animation, or a stream of frames."""
    suffix = Path(options.output).suffix.lower()
    if suffix in MOVING:
        write_animation(options.output, images.numpy(), options.fps)
    elif suffix == ".png":
        write_picture(options.output, sheet(images, options.frames))
    else:
        with open_writer(options.output, len(images), tuple(images.shape[1:]), labels is not None) as writer:
            writer.write(range(len(images)), images, labels)
