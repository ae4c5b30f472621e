"""Images of any data set into one file, for training here and with other programs."""

import time
from shlex import quote
from typing import Any

from cmtool.commands.console import Console
from cmtool.files.output_check import check_place
from cmtool.options.data_spec import data_spec
from cmtool.options.fields import option_fields
from cmtool.pipelines.inputs import dataset_facts, open_dataset
from cmtool.pipelines.pack_data import check_room, estimate_bytes, pack_data
from cmtool.settings import ConvertOptions

__all__ = ["pack_images"]

DEFAULTS = {name: declared.default for name, declared in option_fields(ConvertOptions).items()}


def pack_images(options: ConvertOptions, console: Console) -> None:
    """Write the file, once it is known that there is room for it; it is whole or not there."""
    target, began = options.place, time.monotonic()
    spec = data_options(options)
    check_place(target, [spec.get("source")], overwrite=options.overwrite)
    dataset = open_dataset(spec, console.say)
    if dataset.classes and target.suffix.lower() == ".npy":
        console.warn(f"{target} has no place for labels; .npz, .zip and .tar have")
    elif named(dataset.classes) and target.suffix.lower() != ".zip":
        console.say(f"{target} keeps the numbers of the classes, not their names; a .zip keeps both")
    check_room(target, estimate_bytes(dataset, target))
    with console.progress(len(dataset), "images", f"convert {options.source}") as progress:
        packed = pack_data(dataset, target, options.threads, progress.update)
    console.say(dataset_facts(str(target), dataset))
    console.say(f"train on it with: cmtool train-score --data {quote(str(target))}")
    document = {
        "data": options.source,
        "output": str(target),
        "images": packed.images,
        "shape": list(dataset.shape),
        "classes": list(dataset.classes),
        "bytes": packed.bytes,
        "fingerprint": packed.fingerprint,
        "seconds": round(time.monotonic() - began, 3),
    }
    console.result(document, str(target))


def data_options(options: ConvertOptions) -> dict[str, Any]:
    """The data set that was named, with the options that were given."""
    size = int(options.size) if options.size and options.size.isdecimal() else options.size
    given = {"size": size, "crop": options.crop, "channels": options.channels, "labels": options.labels}
    chosen = {name: value for name, value in given.items() if value != DEFAULTS[name]}
    return {**data_spec(options.source), **(options.data or {}), **chosen}


def named(classes: tuple[str, ...]) -> bool:
    """Whether classes have names that are more than their numbers."""
    return tuple(classes) != tuple(map(str, range(len(classes))))
