"""What is measured and what it is compared with: images or statistics, by the name of a file, data set or model."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cmtool.bundled import NAMES
from cmtool.core.denoiser import Denoiser
from cmtool.core.pixels import truncate_to_pixels
from cmtool.datasets import Dataset
from cmtool.errors import MissingInput, UsageError, closest
from cmtool.evaluation.accumulator import Accumulator, Images, first_images
from cmtool.evaluation.metrics import missing
from cmtool.evaluation.reference_formats import holds_statistics
from cmtool.evaluation.reference_statistics import read_statistics
from cmtool.evaluation.statistics import Statistics
from cmtool.features import Features
from cmtool.files.header import Header
from cmtool.files.model_files import format_of
from cmtool.files.model_format import LoadedModel
from cmtool.files.runs import CHECKPOINT
from cmtool.files.streams.names import SkippedFiles, describe_skipped
from cmtool.files.streams.npz import keys
from cmtool.files.streams.reader import STREAM, items_of
from cmtool.options import registry
from cmtool.options.data_spec import data_spec
from cmtool.pipelines.any_images import image_batches, is_stream, stored_items
from cmtool.pipelines.distributed import gather_in_turn, rank_and_world, split_seeds, sum_over_ranks
from cmtool.pipelines.inputs import class_index, open_dataset, open_model
from cmtool.pipelines.numbered_pictures import open_pictures
from cmtool.pipelines.reporter import Reporter
from cmtool.pipelines.sampler_setup import SamplerSetup
from cmtool.pipelines.sampling_pipeline import SampleBatch, SamplingPipeline
from cmtool.settings import FidOptions
from cmtool.settings.scoring import PROTOCOLS
from cmtool.training.cache import open_cache
from cmtool.training.devices import choose_device
from cmtool.training.read_ahead import depth_for, read_parts
from cmtool.user_paths import expand_home

__all__ = [
    "ImageSet",
    "array_images",
    "dataset_images",
    "expected_statistics",
    "find_images",
    "images_of_dataset",
    "is_model",
    "model_images",
    "open_images",
    "read_images",
    "statistics_of",
    "warn_of_few",
]

OF_A_MODEL = 10_000


@dataclass(frozen=True)
class ImageSet:
    """One side of a comparison: images in batches, statistics of some, or both, as in a reference batch of ADM.

    ``target`` is what it is called, ``total`` how many images there are, where that is known, ``skipped`` counts the
    files of kinds that are not read. Of a model there are its ``sampler``, its ``header`` and the ``seeds`` it draws.
    ``classes`` are the names of those of a data set.
    """

    target: str
    read: Callable[[], Iterator[Images]] | None = None
    total: int | None = None
    statistics: Statistics | None = None
    sampler: SamplerSetup | None = None
    header: Header | None = None
    seeds: range | None = None
    skipped: SkippedFiles = field(default_factory=SkippedFiles)
    classes: tuple[str, ...] = ()

    def facts(self, found: Statistics) -> dict[str, Any]:
        """What a document says of this side, once it has been measured."""
        made = {}
        if self.sampler and self.seeds and self.header and found.n:
            seeds = f"{self.seeds[0]}-{self.seeds[found.n - 1]}"
            model = {"kind": self.header.kind, "sha256": self.header.sha256, "images": self.header.images}
            made = {"nfe": round(self.sampler.nfe_used / found.n, 1), "seeds": seeds, "model": model}
        left = {"left_out": dict(sorted(self.skipped.items()))} if self.skipped else {}
        return {"data": found.data or self.target, "images": found.n, "sha256": found.sha256, **left, **made}


def is_model(target: str) -> bool:
    """Whether a name stands for a model: a checkpoint, a run, or a model of another program; no data set's name."""
    named, path = target in registry.names("datasets"), Path(target)
    return (
        target in NAMES
        or target.endswith(".safetensors")
        or (not named and target != "-" and ((path / CHECKPOINT).is_file() or format_of(path) is not None))
    )


def array_images(images: Tensor | np.ndarray | Iterable[Any], target: str, batch: int) -> ImageSet:
    """Images of a program: uint8 [N, C, H, W], points float32 [N, D], or batches of them, once through."""
    if isinstance(images, Tensor | np.ndarray):
        every = torch.as_tensor(images)
        return ImageSet(target, lambda: iter(every.split(batch)), len(every))
    batches = (some.images if isinstance(some, SampleBatch) else torch.as_tensor(some) for some in images)
    return ImageSet(target, lambda: batches)


def find_images(target: str, features: str, options: FidOptions, reporter: Reporter) -> ImageSet:
    """What ``target`` names: statistics, or the images of a stream, a checkpoint or a data set."""
    if is_model(target):
        return model_images(Path(target), options, reporter)
    return open_images(target, options.batch, features)


def open_images(target: str, batch: int, features: str = "inception") -> ImageSet:
    """The same, of what needs no model."""
    names = registry.names("datasets")
    if holds_statistics(target):
        statistics = read_statistics(target, features)
        statistics = statistics if statistics.data else replace(statistics, data=target)
        return (
            replace(_stream(target, batch), statistics=statistics)
            if _has_images(target)
            else ImageSet(statistics.data or "", statistics=statistics)
        )
    spec = data_spec(target)
    if spec["name"] not in names and target != STREAM and not Path(expand_home(target)).exists():
        near = closest(target, [*names, *NAMES])
        hint = f"did you mean '{near}'?" if near else f"data sets are: {', '.join(names)}"
        raise MissingInput(f"'{target}' is neither a file, a folder nor a data set", hint)
    if is_stream(target):
        return _stream(target, batch)
    return _stored(target, spec, batch) if spec["name"] == "folder" else dataset_images(spec, batch, target)


def _stream(target: str, batch: int) -> ImageSet:
    skipped = SkippedFiles()

    def read() -> Iterator[Images]:
        skipped.clear()
        return image_batches(items_of(target, skipped), batch)

    return ImageSet(target, read, skipped=skipped)


def _stored(target: str, spec: Mapping[str, Any], batch: int) -> ImageSet:
    """Pictures that only the reader of data sets knows, each of its own size as those of a stream."""
    pictures, skipped = open_pictures(spec), SkippedFiles()
    skipped.notes += pictures.remarks

    def read() -> Iterator[Images]:
        return image_batches(stored_items(pictures), batch)

    return ImageSet(target, read, len(pictures), skipped=skipped, classes=pictures.classes)


def _has_images(target: str) -> bool:
    return target.endswith(".npz") and "arr_0" in keys(Path(target))


def model_images(path: Path | None, options: FidOptions, reporter: Reporter) -> ImageSet:
    """Images of a model, drawn as they are looked at; none of them touches the disk."""
    loaded = open_model(path, choose_device(options.device), reporter, options.format, options.backbone)
    return loaded_images(loaded, options, reporter)


def loaded_images(loaded: LoadedModel[Denoiser], options: FidOptions, reporter: Reporter) -> ImageSet:
    """Images of a model that is open."""
    pipeline = SamplingPipeline.of(loaded, options, reporter, class_index(loaded.header, options.klass))
    setup = pipeline.sampler
    if setup.grid:
        reporter.say(f"sigmas {setup.description}")
    seeds = range(options.seed, options.seed + (options.n or OF_A_MODEL))
    if options.protocol and PROTOCOLS[options.protocol].truncate:
        pipeline.pixels = truncate_to_pixels

    def read() -> Iterator[Images]:
        setup.nfe_used = 0
        mine = split_seeds(seeds, pipeline.batch_size, *rank_and_world())
        return (batch.images for batch in pipeline(mine))

    return ImageSet(str(loaded.path), read, len(seeds), sampler=setup, header=loaded.header, seeds=seeds)


def dataset_images(spec: Mapping[str, Any], batch: int, target: str | None = None) -> ImageSet:
    """Every image of a data set, under the name that the user gave it or its own."""
    return images_of_dataset(open_dataset(spec), batch, target or spec["name"])


def images_of_dataset(dataset: Dataset, batch: int, target: str) -> ImageSet:
    """Every image of a data set that is open."""
    cache, n = open_cache(dataset), len(dataset)

    def read() -> Iterator[Images]:
        parts = (range(i, min(i + batch, n)) for i in range(0, n, batch))
        depth = depth_for(batch * math.prod(dataset.shape))
        return (images for images, _ in read_parts(cache, parts, depth))

    return ImageSet(target, read, n, classes=tuple(dataset.classes))


def statistics_of(
    side: ImageSet,
    features: Features,
    n: int | None,
    reporter: Reporter,
    needs: frozenset[str] = frozenset(),
    training: Tensor | None = None,
) -> Statistics:
    """The statistics of one side: those of the file where they say enough, else what its images show.

    Where a file has both, its mean and covariance count, and its images supply the rest. UsageError when it has
    neither.
    """
    known = side.statistics
    if known and not missing(known, needs):
        return known
    if side.read is None:
        raise UsageError(
            f"'{side.target}' has a mean and a covariance, and these metrics need its images",
            "name the images or the data set they were measured on, or leave the metrics out",
        )
    measured = measure(side, features, n, reporter, needs, training)
    if known is None:
        return measured
    rest = {key: getattr(measured, key) for key in ("rows", "scores", "nearest")}
    return replace(known, spatial=known.spatial or measured.spatial, **rest)


def measure(
    side: ImageSet,
    features: Features,
    n: int | None,
    reporter: Reporter,
    needs: frozenset[str] = frozenset(),
    training: Tensor | None = None,
) -> Statistics:
    """What the features of the first ``n`` images show."""
    assert side.read
    seen, target = Accumulator(features, needs, training), side.target
    total = min(filter(None, (side.total, n)), default=None)
    batches = ((batch, seen.look(batch)) for batch in first_images(side.read(), n))
    with reporter.progress(total, "images", f"fid {target}") as progress:
        for batch, look in gather_in_turn(batches) if side.sampler else batches:
            seen.add(batch, look)
            progress.update(seen.n)
    if side.skipped:
        reporter.warn(f"{target}: {describe_skipped(side.skipped)}")
    for note in side.skipped.notes:
        reporter.warn(note)
    if side.sampler:
        side.sampler.nfe_used = round(sum_over_ranks(side.sampler.nfe_used))
    if seen.n < 2:
        raise UsageError(f"'{target}' has {seen.n} images, and a covariance needs 2 at least")
    return seen.statistics(target)


def read_images(side: ImageSet, numbers: list[int]) -> list[Tensor]:
    """The images with these numbers, in that order, read once more."""
    assert side.read
    found, first = {}, 0
    for images in side.read():
        found |= {i: images[i - first].cpu() for i in numbers if first <= i < first + len(images)}
        first += len(images)
        if len(found) == len(set(numbers)):
            break
    return [found[i] for i in numbers]


def warn_of_few(data: str | None, n: int | None, dim: int, reporter: Reporter) -> None:
    """Warn of fewer images than a covariance needs."""
    if n is not None and n <= dim:
        reporter.warn(f"{data}: {n} images are too few for {dim} features; the distance is unreliable")


def expected_statistics(features: Features) -> Statistics:
    """What these features could be compared with, before an hour is spent on them."""
    mean = torch.zeros(features.dim, dtype=torch.float64)
    return Statistics(mean, mean.diag(), features=features.name, fingerprint=features.fingerprint, mode=features.mode)
