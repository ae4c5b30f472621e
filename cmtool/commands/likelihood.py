"""``likelihood``: how many bits a score model needs for each value of an image."""

import math
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from cmtool.class_names import known_names, match_classes
from cmtool.commands.console import Console
from cmtool.errors import UsageError
from cmtool.files.header import Header
from cmtool.pipelines.inputs import class_name, describe_model, open_dataset, open_model
from cmtool.pipelines.likelihood import measure
from cmtool.settings import LikelihoodOptions
from cmtool.training.devices import choose_device, use_threads

__all__ = ["run"]

MOST = 12  # classes on a line


def run(options: LikelihoodOptions, console: Console) -> None:
    """Walk images of the data to noise, adding up how the volume changes, and print the mean in bits per dimension."""
    use_threads(options.threads)
    model = open_model(
        options.model, choose_device(options.device), console, options.format, options.backbone, kind="score"
    )
    header, path = model.header, model.path
    if header.kind != "score":
        raise UsageError(
            f"{path} is a consistency model, which has no density: that takes a score model's ODE",
            "take the score model it was distilled from: cmtool likelihood -m TEACHER",
        )
    spec = options.data or {"name": header.data["name"]}
    dataset = open_dataset(spec)
    if tuple(dataset.shape) != header.shape or len(header.shape) != 3:
        sides = ["x".join(map(str, shape)) for shape in (header.shape, tuple(dataset.shape))]
        raise UsageError(f"{path} knows images of {sides[0]}, and the data are {sides[1]}")
    n, began = min(options.n, len(dataset)), time.monotonic()
    classes = match_names(dataset.classes, header, path, console)
    with console.progress(n, "images", "likelihood") as progress:
        found = torch.cat(list(measure(model, dataset, n, options, progress.update, classes)))
    mean, error = float(found.mean()), float(found.std() / math.sqrt(n)) if n > 1 else 0.0
    document = {
        "metric": "bits/dim",
        "value": mean,
        "standard_error": error,
        "images": n,
        "data": spec["name"],
        "model": describe_model(model),
        "steps": options.steps,
        "probes": options.hutchinson_probes or math.prod(header.shape),
        "nfe": 4 * options.steps,
        "seconds": round(time.monotonic() - began, 3),
    }
    console.result(document, f"bits/dim  {mean:.4f} +- {error:.4f}")


def match_names(names: Sequence[str], header: Header, path: Path, console: Console) -> Tensor | None:
    """The model's label for each class of the data, int64 [K]; None where the images are measured without a class.

    UsageError where a class of the data is none of the model's.
    """
    if not header.num_classes:
        return None
    if not names:
        console.warn(
            f"{path} knows classes, and the data have none: the likelihood is that of images without their class"
        )
        return None
    ours = known_names(header.classes, header.num_classes)
    found = match_classes(names, ours, "the data", str(path))
    if list(names) != list(ours):
        some = [f"{name} is {class_name(header, k)}" for name, k in zip(names, found, strict=True) if k is not None]
        console.say(
            f"classes of the data in those of the model: {', '.join(some[:MOST])}{', ...' * (len(some) > MOST)}"
        )
    return torch.tensor(found)
