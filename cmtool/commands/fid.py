"""``fid``: how far one set of images is from another, in one number or several."""

import math
import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from cmtool.class_names import match_classes
from cmtool.commands.console import Console
from cmtool.commands.scoring import curve
from cmtool.errors import CmtoolError, UsageError, check_regular
from cmtool.evaluation.metric import NEAREST, Score
from cmtool.evaluation.metrics import build_metrics, needs
from cmtool.evaluation.reference_statistics import write_statistics
from cmtool.evaluation.statistics import NearestPair
from cmtool.features import Features
from cmtool.files.atomic import replace_folder, write_file
from cmtool.files.output_check import check_place, made_by
from cmtool.files.picture_files import check_target, grid, write_picture
from cmtool.files.streams.npz import keys
from cmtool.files.streams.reader import STREAM
from cmtool.options import registry
from cmtool.options.fields import option_fields
from cmtool.pictures import with_channels
from cmtool.pipelines.canvas import SMOOTH, resize
from cmtool.pipelines.distributed import has_stray_rank, is_main_rank
from cmtool.pipelines.image_sets import ImageSet, dataset_images, find_images, is_model, read_images
from cmtool.pipelines.scoring import Scores, ScoringPipeline
from cmtool.settings import FidOptions
from cmtool.settings.sampling import GenerationOptions
from cmtool.settings.shared import MachineOptions
from cmtool.training.devices import use_threads

__all__ = ["run"]

FEW = 10_000  # below this many images the distance is biased upwards enough to matter
EXAMPLE = "cmtool fid samples --ref digits --features small"


def run(options: FidOptions, console: Console) -> None:
    """Measure both sides and print one number, called what it is; or several, or a curve; or write a reference."""
    check_inputs(options)
    if remark := has_stray_rank():
        console.warn(remark)
    use_threads(options.threads)
    pipeline, began = ScoringPipeline(options, console), time.monotonic()
    if options.make_ref:
        make_reference(options, pipeline, console)
        return
    _check(options)
    _check_places(options)
    sources = curve.sides(options, pipeline.features.name, console)
    reference = _reference(options, sources[0], pipeline.features, console)
    pipeline.check(reference, *sources)
    _compare_classes(sources[0], reference, options, console)
    known = pipeline.reference(reference)
    found = [pipeline(side, known) for side in sources]
    for scores in found:
        _warn(scores, pipeline.features, console)
    documents = [
        _document(options, pipeline, side, reference, scores) for side, scores in zip(sources, found, strict=True)
    ]
    document = {**documents[0], "seconds": round(time.monotonic() - began, 3)}
    if is_main_rank():
        tell(options, sources, documents, document, console)
        nearest = found[0].samples.nearest
        if options.sheet and nearest and nearest.pairs:
            write_picture(options.sheet, _pairs(nearest.pairs, reference), "fid")


def check_inputs(options: FidOptions) -> None:
    """UsageError for standard input on both sides, BadFile for a pipe by its path."""
    if options.source == options.ref == "-":
        raise UsageError("standard input can be one side only", "write one of them to a file first")
    for target in filter(None, (options.source, options.ref)):
        if target != STREAM:
            check_regular(target)


def tell(
    options: FidOptions,
    sources: Sequence[ImageSet],
    documents: Sequence[dict[str, Any]],
    document: dict[str, Any],
    console: Console,
) -> None:
    """What was measured; of several checkpoints a table, and then the curve."""
    text = "\n".join(_line(row) for row in document["metrics"])
    if len(sources) > 1:
        document |= {"checkpoints": curve.table(sources, documents), "chart": str(curve.place(options))}
        text = "\n".join(curve.lines(document["checkpoints"], text, curve.place(options)))
    console.result(document, text)  # first of all: the result is printed, whether or not it can be drawn
    if len(sources) > 1:
        curve.draw(options, sources, documents)


def make_reference(options: FidOptions, pipeline: ScoringPipeline, console: Console) -> None:
    """Write mean and covariance of the source to a file."""
    if options.source is None:
        raise UsageError("--make-ref needs images or a data set", "cmtool fid --make-ref digits -o ref.npz")
    if options.output.suffix != ".npz":
        raise UsageError(f"cannot write statistics to {options.output}", "statistics are written as .npz")
    check_place(options.output, [options.source], overwrite=options.overwrite, ours=_is_reference)
    side = find_images(options.source, pipeline.features.name, options, console)
    found = pipeline.moments(side)
    if not is_main_rank():
        return
    with replace_folder(options.output) as file, write_file(options.output):
        write_statistics(file, found)
    document = {"output": str(options.output), "features": _features(pipeline.features), "source": side.facts(found)}
    console.result(document, str(options.output))


def _warn(scores: Scores, features: Features, console: Console) -> None:
    """What must be known beside the number."""
    n = scores.samples.n
    if features.label == "FID" and min(n or 0, FEW) < FEW:
        console.warn(f"{n} images: this is no FID-50k, and it is biased upwards")
    if scores.reference.fingerprint is None:
        name = scores.reference.data
        console.warn(f"{name} does not say with which network and resizing it was made: taken on trust")


def _document(
    options: FidOptions, pipeline: ScoringPipeline, side: ImageSet, reference: ImageSet, scores: Scores
) -> dict[str, Any]:
    """The document of one source."""
    rows = [_label(score, scores.samples.n) for score in scores.scores]
    return {
        "metric": rows[0]["metric"],
        "value": rows[0]["value"],
        "metrics": rows,
        "features": _features(pipeline.features),
        "protocol": options.protocol,
        "source": side.facts(scores.samples),
        "reference": reference.facts(scores.reference),
    }


def _check(options: FidOptions) -> None:
    """UsageError for options that could not do what they say."""
    if options.sheet and NEAREST not in needs(build_metrics(options.metrics)):
        raise UsageError("--sheet shows what the metric memorization found", "add --metrics memorization")
    if options.source is None or any(is_model(target) for target in (options.source, options.ref) if target):
        return
    for key, declared in option_fields(FidOptions).items():
        ours = declared.name in {f.name for f in fields(GenerationOptions)} - {f.name for f in fields(MachineOptions)}
        if ours and key not in ("batch", "seed") and getattr(options, declared.name) != declared.default:
            flag = declared.long if not declared.yaml_only else f"--set {key}"
            raise UsageError(
                f"{flag} is about how a model draws images, and '{options.source}' is no model", "leave it out"
            )


def _check_places(options: FidOptions) -> None:
    """UsageError where a picture would be written over what is read or what fid did not make."""
    for place in filter(None, (options.sheet, options.chart)):
        check_target(place)
        check_place(place, [options.source, options.ref], overwrite=options.overwrite, ours=made_by("fid"))


def _compare_classes(source: ImageSet, reference: ImageSet, options: FidOptions, console: Console) -> None:
    """Say that a model knows other classes than its images are compared with."""
    if options.klass is None and source.header and source.header.classes and reference.classes:
        try:
            match_classes(reference.classes, source.header.classes, f"'{reference.target}'")
        except UsageError as error:
            console.warn(error.message)


def _is_reference(path: Path) -> bool:
    """Whether ``--make-ref`` wrote the file."""
    try:
        return {"mu", "sigma", "features", "fingerprint"} <= set(keys(path))
    except CmtoolError:
        return False


def _reference(options: FidOptions, source: ImageSet, features: Features, console: Console) -> ImageSet:
    """What was named, else the data that the model learned from."""
    if options.ref:
        return find_images(options.ref, features.name, options, console)
    header = source.header
    if header is None:
        raise UsageError("fid needs --ref, the images to compare with", EXAMPLE)
    spec = header.options.get("data") or {"name": header.data["name"]}
    if spec["name"] not in registry.names("datasets"):
        raise UsageError("fid needs --ref: the model does not say what it learned from", EXAMPLE)
    return dataset_images(spec, options.batch)


def _label(score: Score, n: int | None) -> dict[str, Any]:
    """With the name under which the number may be reported: FID-50k is one of 50,000 images, and of no fewer."""
    name = score.metric
    if n is not None and name in ("FID", "sFID"):
        name = f"{name}-{n // 1000}k" if n % 1000 == 0 else f"{name}-{n}"
    return {**score.document(), "name": name}


def _line(row: dict[str, Any]) -> str:
    more = f"  ({row['low']:.6g} to {row['high']:.6g})" if "low" in row else ""
    more = f"  +- {row['spread']:.3g}" if "spread" in row else more
    return f"{row['name']}  {row['value']:.6g}{more}"


def _features(features: Features) -> dict[str, Any]:
    return {"name": features.name, "fingerprint": features.fingerprint, "dim": features.dim}


def _pairs(pairs: Sequence[NearestPair], reference: ImageSet) -> np.ndarray:
    """The closest images in the upper row of each two, their nearest training images in the lower."""
    training = read_images(reference, [pair.training for pair in pairs])
    half = len(pairs) // 2 or 1
    rows = []
    for start in range(0, len(training), half):
        rows += [pair.image for pair in pairs[start : start + half]] + training[start : start + half]
    return grid(_alike([row.numpy() for row in rows]), half)


def _alike(images: Sequence[np.ndarray]) -> np.ndarray:
    """Images uint8 [C, H, W] of one shape as they are; else coloured, at the size of the largest."""
    if len({image.shape for image in images}) > 1:
        size = max((image.shape[1:] for image in images), key=math.prod)
        images = [with_channels(resize(image, size, SMOOTH), 3) for image in images]
    return np.stack(images)
