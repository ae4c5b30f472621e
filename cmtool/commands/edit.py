"""``edit``: fill, frame, colour, enlarge, clean, sharpen or paint, with a model that was trained for none of it."""

import time

from cmtool.commands.console import Console
from cmtool.commands.editing.edit_stream import Edits
from cmtool.commands.editing.output import check_results, writing_results
from cmtool.errors import UsageError
from cmtool.files.streams.reader import STREAM
from cmtool.options import registry
from cmtool.pipelines.inputs import describe_model, open_model
from cmtool.settings import EditOptions
from cmtool.training.devices import choose_device, use_threads

__all__ = ["run"]

OF_MASKS = ("box", "random", "feather")  # what becomes the option ``mask`` of a task


def run(options: EditOptions, console: Console) -> None:
    """Edit pictures, as they come, with as many variants of each as were asked for."""
    output = check_results(options)
    if [options.input, str(options.mask), str(options.truth)].count(STREAM) > 1:
        raise UsageError("standard input is the picture or the mask", "give one of them as a file")
    refuse_unused(options)
    use_threads(options.threads)
    model = open_model(options.model, choose_device(options.device), console, options.format, options.backbone)
    if len(model.header.shape) != 3:
        raise UsageError(f"edit works on images, and {model.path} makes points")
    edits, began = Edits(model, options, console), time.monotonic()
    with writing_results(output, options) as take:
        for canvas, seed, image in edits:
            take(canvas.key, f"-{seed}" if options.variants > 1 else "", image.numpy())
    seconds = time.monotonic() - began
    console.say(edits.told())
    document = {
        "model": describe_model(model),
        "task": options.operator.name,
        "input": options.input,
        "output": output,
        "seed": options.seed,
        "variants": options.variants,
        **edits.found(),
        "report": options.report and str(options.report),
        "seconds": round(seconds, 3),
    }
    if output != STREAM:
        console.result(document, output)
    if options.report:
        edits.report.write(options.report)


def refuse_unused(options: EditOptions) -> None:
    """An option that the task would silently ignore is a mistake."""
    task = options.operator.name
    takes = registry.options(registry.get("operators", task))
    of_masks = ["white", *OF_MASKS] if "mask" in takes else []
    flags = [*takes, *of_masks]
    for name in ("mask", *OF_MASKS, "margin", "factor", "blur", "level"):
        if getattr(options, name) is not None and name not in flags:
            known = ", ".join(f"--{o}" for o in flags if hasattr(options, o)) or "no options"
            raise UsageError(f"{task} takes no --{name}", f"it takes: {known}")
