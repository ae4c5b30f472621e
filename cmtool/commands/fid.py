"""``fid``: the Frechet distance between the features of two sets of images."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cmtool import registry
from cmtool.commands.console import Console
from cmtool.commands.data import open_dataset
from cmtool.commands.generate import in_batches, plan
from cmtool.commands.models import class_index, open_model
from cmtool.dataspec import data_spec
from cmtool.errors import MissingInput, UsageError, closest
from cmtool.evaluation.frechet import frechet_distance
from cmtool.evaluation.moments import Moments
from cmtool.evaluation.references import Statistics, comparable, holds_statistics, read_statistics
from cmtool.files.images import open_reader
from cmtool.files.runs import CHECKPOINT
from cmtool.settings import FidOptions
from cmtool.training.batches import Cache
from cmtool.training.devices import device, use_threads

__all__ = ["run"]

FEW = 10_000  # below this many images the distance is biased upwards enough to matter
OF_A_MODEL = 10_000


def run(options: FidOptions, console: Console) -> None:
    """Measure both sides and print one number, called what it is."""
    if options.source == options.ref == "-":
        raise UsageError("standard input can be one side only", "write one of them to a file first")
    use_threads(options.threads)
    features = registry.build("features", options.features)
    began = time.monotonic()
    one, two = (measure(target, features, options, console) for target in (options.source, options.ref))
    comparable(one, two)
    value = frechet_distance(one, two)
    for side in (one, two):
        if side.n is not None and side.n <= len(side.mean):
            console.warn(
                f"{side.data}: {side.n} images are too few for {len(side.mean)} features; the distance is unreliable"
            )
    document = {
        "metric": features.label,
        "value": value,
        "features": {"name": features.name, "fingerprint": features.fingerprint, "dim": features.dim},
        "source": {"data": one.data, "images": one.n},
        "reference": {"data": two.data, "images": two.n},
        "seconds": round(time.monotonic() - began, 3),
    }
    if features.label == "FID" and min(one.n or 0, FEW) < FEW:
        console.warn(f"{one.n} images: this is no FID-50k, and it is biased upwards")
    console.result(document, f"{features.label}  {value:.6g}")


def measure(target: str, features: Any, options: FidOptions, console: Console) -> Statistics:
    """Mean and covariance of the features of whatever ``target`` names."""
    if target.endswith(".npz") and holds_statistics(target):
        return read_statistics(target)
    moments, total = Moments(), options.n
    with console.track(total, "images", f"fid {target}") as progress:
        for images in limited(batches(target, options, console), options.n):
            moments.update(features(images))
            progress.update(moments.n)
    if moments.n < 2:
        raise UsageError(f"'{target}' has {moments.n} images, and a covariance needs 2 at least")
    return Statistics(moments.mean, moments.covariance, moments.n, features.name, features.fingerprint, target)


def batches(target: str, options: FidOptions, console: Console) -> Iterator[Tensor]:
    """uint8 images [B, C, H, W] of a stream, a checkpoint or a data set."""
    path = Path(target)
    if target.endswith(".safetensors") or (path / CHECKPOINT).is_file():
        yield from of_model(path, options, console)
    elif target == "-" or path.is_file() or (path.is_dir() and target not in registry.names("datasets")):
        for batch in open_reader(target, options.batch):
            yield torch.as_tensor(batch.images)
    elif data_spec(target)["name"] in registry.names("datasets"):
        yield from of_dataset(target, options.batch)
    else:
        names = registry.names("datasets")
        near = closest(target, names)
        hint = f"did you mean '{near}'?" if near else f"data sets are: {', '.join(names)}"
        raise MissingInput(f"'{target}' is neither a file, a folder nor a data set", hint)


def of_model(path: Path, options: FidOptions, console: Console) -> Iterator[Tensor]:
    model, _ = open_model(path, device(options.device), console)
    walk = plan(model.header, options.steps, options.levels)
    seeds = range(options.seed, options.seed + (options.n or OF_A_MODEL))
    for _, images, _ in in_batches(model, walk, seeds, options.batch, class_index(model.header, options.klass)):
        yield images


def of_dataset(target: str, batch: int) -> Iterator[Tensor]:
    dataset = open_dataset(data_spec(target))
    cache = Cache(dataset)
    for i in range(0, len(dataset), batch):
        yield cache.read(range(i, min(i + batch, len(dataset))))[0]


def limited(batches: Iterator[Tensor], n: int | None) -> Iterator[Tensor]:
    """The first n images."""
    for images in batches:
        if n is not None and n <= len(images):
            yield images[:n]
            return
        yield images
        n = None if n is None else n - len(images)
