"""``edit``: fill, frame, colour, enlarge, clean, sharpen or paint, with a model that was trained for none of it."""

import time

from cmtool.commands.console import Console
from cmtool.commands.editing.edit_run import EditRun
from cmtool.commands.editing.output import check_results, writing_results
from cmtool.errors import UsageError
from cmtool.files.streams.reader import STREAM
from cmtool.pipelines.editing import refuse_unused
from cmtool.pipelines.inputs import describe_model, open_model
from cmtool.settings import EditOptions
from cmtool.training.devices import choose_device, use_threads

__all__ = ["run"]


def run(options: EditOptions, console: Console) -> None:
    """Edit pictures, as they come, with as many variants of each as were asked for."""
    output = check_results(options)
    if [options.input, str(options.mask), str(options.truth)].count(STREAM) > 1:
        raise UsageError("standard input is the picture or the mask", "give one of them as a file")
    refuse_unused(options, options.mask is not None)
    use_threads(options.threads)
    model = open_model(options.model, choose_device(options.device), console, options.format, options.backbone)
    edits, began = EditRun(model, options, console), time.monotonic()
    with writing_results(output, options) as take:
        for edited in edits:
            for seed, image in zip(edited.seeds, edited.images, strict=True):
                take(edited.canvas.key, f"-{seed}" if options.variants > 1 else "", image.numpy())
    seconds = time.monotonic() - began
    console.say(edits.summary())
    document = {
        "model": describe_model(model),
        "task": options.operator.name,
        "input": options.input,
        "output": output,
        "seed": options.seed,
        "variants": options.variants,
        **edits.document(),
        "report": options.report and str(options.report),
        "seconds": round(seconds, 3),
    }
    if output != STREAM:
        console.result(document, output)
    if options.report:
        edits.report.write(options.report)
