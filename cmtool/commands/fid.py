"""``fid``: the Frechet distance between the features of two sets of images."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cmtool import registry
from cmtool.commands.console import Console
from cmtool.commands.data import open_dataset
from cmtool.commands.generate import in_batches
from cmtool.commands.guide import guided
from cmtool.commands.models import class_index, open_model
from cmtool.commands.plan import Plan, plan
from cmtool.dataspec import data_spec
from cmtool.errors import MissingInput, UsageError, closest
from cmtool.evaluation.frechet import frechet_distance
from cmtool.evaluation.moments import Moments
from cmtool.evaluation.references import Statistics, comparable, holds_statistics, read_statistics
from cmtool.files.images import open_reader
from cmtool.files.opening import format_of
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
    features = registry.build("features", options.features, device=str(device(options.device)))
    began = time.monotonic()
    sides = [find(target, options, console) for target in (options.source, options.ref)]
    for side in sides:
        if isinstance(side, Statistics):
            comparable(side, unmeasured(features))
    one, two = (
        side if isinstance(side, Statistics) else measure(side, features, n, console)
        for side, n in zip(sides, (options.n, None), strict=True)
    )
    value = frechet_distance(one, two)
    for side in (one, two):
        few(side.data, side.n, len(side.mean), console)
    document = {
        "metric": features.label,
        "value": value,
        "features": {"name": features.name, "fingerprint": features.fingerprint, "dim": features.dim},
        "source": {"data": one.data, "images": one.n, **cost(sides[0], one.n)},
        "reference": {"data": two.data, "images": two.n},
        "seconds": round(time.monotonic() - began, 3),
    }
    if features.label == "FID" and min(one.n or 0, FEW) < FEW:
        console.warn(f"{one.n} images: this is no FID-50k, and it is biased upwards")
    console.result(document, f"{features.label}  {value:.6g}")


def few(data: str | None, n: int | None, dim: int, console: Console) -> None:
    """Warn of fewer images than a covariance needs."""
    if n is not None and n <= dim:
        console.warn(f"{data}: {n} images are too few for {dim} features; the distance is unreliable")


def unmeasured(features: Any) -> Statistics:
    """What these features could be compared with, before an hour is spent on them."""
    mean = torch.zeros(features.dim, dtype=torch.float64)
    return Statistics(mean, mean.diag(), features=features.name, fingerprint=features.fingerprint)


@dataclass(frozen=True)
class Images:
    """Batches uint8 [B, C, H, W], what they are called, and how many images they hold where that is known."""

    target: str
    batches: Iterator[Tensor]
    total: int | None = None
    plan: Plan | None = None  # of a model


def cost(side: Statistics | Images, n: int | None) -> dict[str, float]:
    """How often a model's network was asked for each image."""
    return {"evaluations": round(side.plan.made / n, 1)} if isinstance(side, Images) and side.plan and n else {}


def measure(images: Images, features: Any, n: int | None, console: Console) -> Statistics:
    """Mean and covariance of the features of the first ``n`` images."""
    moments, target = Moments(), images.target
    total = min(filter(None, (images.total, n)), default=None)
    with console.track(total, "images", f"fid {target}") as progress:
        for batch in limited(images.batches, n):
            moments.update(features(batch))
            progress.update(moments.n)
    if moments.n < 2:
        raise UsageError(f"'{target}' has {moments.n} images, and a covariance needs 2 at least")
    return Statistics(moments.mean, moments.covariance, moments.n, features.name, features.fingerprint, target)


def find(target: str, options: FidOptions, console: Console) -> Statistics | Images:
    """What ``target`` names: statistics, or the images of a stream, a checkpoint or a data set."""
    named = target in registry.names("datasets")
    path = Path(target)
    if target.endswith(".safetensors") or (not named and ((path / CHECKPOINT).is_file() or format_of(path))):
        return of_model(path, options, console)
    return given(target, options.batch)


def given(target: str, batch: int) -> Statistics | Images:
    """The same, of what needs no model."""
    names = registry.names("datasets")
    if target.endswith(".npz") and holds_statistics(target):
        return read_statistics(target)
    # a data set's name wins over a folder beside it; ./digits is the folder
    if target == "-" or (target not in names and Path(target).exists()):
        return Images(target, (torch.as_tensor(read.images) for read in open_reader(target, batch)))
    if data_spec(target)["name"] in names:
        return of_dataset(target, batch)
    near = closest(target, names)
    hint = f"did you mean '{near}'?" if near else f"data sets are: {', '.join(names)}"
    raise MissingInput(f"'{target}' is neither a file, a folder nor a data set", hint)


def of_model(path: Path, options: FidOptions, console: Console) -> Images:
    model, found = open_model(path, device(options.device), console, options.format, options.backbone)
    model = guided(model, found, options, console.warn)
    walk, klass = plan(model.header, options), class_index(model.header, options.klass)
    seeds = range(options.seed, options.seed + (options.n or OF_A_MODEL))
    made = (images for _, images, _ in in_batches(model, walk, seeds, options.batch, klass))
    return Images(str(path), made, len(seeds), walk)


def of_dataset(target: str, batch: int) -> Images:
    dataset = open_dataset(data_spec(target))
    cache, n = Cache(dataset), len(dataset)
    return Images(target, (cache.read(range(i, min(i + batch, n)))[0] for i in range(0, n, batch)), n)


def limited(batches: Iterator[Tensor], n: int | None) -> Iterator[Tensor]:
    """The first n images."""
    for images in batches:
        if n is not None and n <= len(images):
            yield images[:n]
            return
        yield images
        n = None if n is None else n - len(images)
