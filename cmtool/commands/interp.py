"""``interp``: from the image of one seed to that of another, along the great circle between their noises."""

import torch

from cmtool.commands.console import Console
from cmtool.commands.generate import draw, labels_of, sheet
from cmtool.commands.guide import evaluations, guided
from cmtool.commands.models import class_index, describe, open_model
from cmtool.commands.plan import plan
from cmtool.core.noise import Blend
from cmtool.files.images import open_writer
from cmtool.files.pictures import write_picture
from cmtool.settings import InterpOptions
from cmtool.training.devices import device, use_threads

__all__ = ["run"]


def run(options: InterpOptions, console: Console) -> None:
    """Draw the frames; a conditional model without --class changes class half way, so that both ends are samples."""
    use_threads(options.threads)
    model, path = open_model(options.model, device(options.device), console, options.format, options.backbone)
    header, model = model.header, guided(model, path, options, console.warn)
    walk = plan(header, options)
    ends = labels_of([options.a, options.b], header.conditional, class_index(header, options.klass))
    labels = None if ends is None else ends[(torch.arange(options.frames) * 2 >= options.frames).long()]
    images = draw(model, walk, Blend(options.a, options.b, options.frames), labels)
    if options.output.endswith(".png"):
        write_picture(options.output, sheet(images, options.frames))
    else:
        with open_writer(options.output, options.frames, header.shape, labels is not None) as writer:
            writer.write(range(options.frames), images, labels)
    document = {
        "model": describe(model, path),
        "seeds": [options.a, options.b],
        "frames": options.frames,
        "evaluations": evaluations(walk, model),
        "output": options.output,
    }
    if options.output != "-":
        console.result(document, options.output)
