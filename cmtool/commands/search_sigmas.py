"""``levels``: the intermediate noise levels at which a consistency model's images come closest to the data."""

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from shlex import quote
from typing import Any

import torch

from cmtool.commands.console import Console
from cmtool.core.denoiser import Denoiser
from cmtool.errors import BadFile, MissingInput, UsageError, WriteFailed
from cmtool.evaluation.frechet import Moments, frechet_distance
from cmtool.evaluation.reference_statistics import check_comparable
from cmtool.evaluation.sigma_search import Trial, measurements, search
from cmtool.evaluation.statistics import Statistics
from cmtool.features import Features
from cmtool.files.atomic import write_bytes, write_file
from cmtool.files.checkpoint import save
from cmtool.files.header import Header, read_header
from cmtool.files.model_files import parent_record
from cmtool.files.model_format import LoadedModel
from cmtool.files.output_check import check_place
from cmtool.files.streams.reader import STREAM
from cmtool.options import registry
from cmtool.pipelines.image_sets import expected_statistics, open_images, statistics_of, warn_of_few
from cmtool.pipelines.inputs import describe_model, open_model
from cmtool.pipelines.sampler_setup import SamplerSetup, multistep_sampler, recommended_sigmas
from cmtool.pipelines.sampling_pipeline import SamplingPipeline
from cmtool.settings import SearchSigmasOptions
from cmtool.text_files import dump_json
from cmtool.training.devices import choose_device, use_threads

__all__ = ["run"]

LONGEST = 1 << 16  # bytes of a line of the trace
ROUNDS = 3  # over all sigmas, when no budget is given


def run(options: SearchSigmasOptions, console: Console) -> None:
    """Search, noting every measurement as it is made, and write a copy of the checkpoint that knows the answer."""
    use_threads(options.threads)
    where, began = choose_device(options.device), time.monotonic()
    model = open_model(options.model, where, console)
    header, path = model.header, model.path
    source = parent_record(path)  # now: a run may replace the file while this one goes on
    trace = options.output.with_suffix(".trace.jsonl")
    check(header, path, options, trace, source)
    features = registry.build("features", options.features, device=str(where))
    target = reference(options, features, console)
    warn_of_few(str(path), options.n, features.dim, console)
    measure = FrechetMeasure(model, features, target, options, trace)

    first, best = find_sigmas(measure, console)
    again = confirm(measure, first, best, console) if best != first else None
    document = {
        "model": describe_model(model),
        "metric": features.label,
        "features": {"name": features.name, "fingerprint": features.fingerprint, "dim": features.dim},
        "reference": {"data": target.data, "images": target.n},
        "images": options.n,
        "start": {"sigmas": [header.sigma_max, *first.sigmas], "value": first.value},
        "found": {"sigmas": [header.sigma_max, *best.sigmas], "value": best.value},
        "other_noise": again,
        "measurements": len(measure.trace),
        "trace": measure.trace,
        "seconds": round(time.monotonic() - began, 3),
    }
    sigmas = ", ".join(f"{sigma:.4g}" for sigma in (header.sigma_max, *best.sigmas))
    gain = f"{features.label}  {first.value:.6g} -> {best.value:.6g}"
    summary = f"{gain}  at sigmas {sigmas}, {len(measure.trace)} measurements"
    try:
        copy = save(
            options.output, model.model, replace(header, sigmas=list(best.sigmas), parents=[*header.parents, source])
        )
    except WriteFailed:
        console.result(document | {"output": None}, summary)  # what was measured is not lost with the copy
        raise
    console.result(document | {"output": str(options.output), "sha256": copy.sha256}, f"{summary}: {options.output}")


def check(header: Header, path: Path, options: SearchSigmasOptions, trace: Path, source: dict[str, str]) -> None:
    """Refuse, before an hour is spent, a model without consistency steps and an output where no copy can be."""
    output = options.output
    if header.kind != "consistency":
        raise UsageError(
            f"sigmas are searched for consistency models, and {path} is a {header.kind} model",
            f"distil it first: cmtool distill --teacher {quote(str(path))}",
        )
    if output.is_dir() or output.resolve() == path.resolve():
        what = "a folder" if output.is_dir() else "the model itself"
        raise UsageError(f"{output} is {what}, where no copy can be", "name another file, such as -o tuned.safetensors")
    inputs = [path, options.model, options.ref if options.ref != STREAM else None]
    check_place(trace, inputs, overwrite=options.overwrite, ours=is_trace)
    parents = [each["sha256"] for each in (*header.parents, source)]
    tuned = header.method, header.images, parents
    check_place(
        output, inputs, overwrite=options.overwrite, ours=lambda place: trace.is_file() and origin(place) == tuned
    )


def is_trace(path: Path) -> bool:
    """Whether a file holds the measurements of an earlier search, or of one that was stopped before the first."""
    with path.open("rb") as file:
        line = file.readline(LONGEST)
    try:
        return not line or json.loads(line).keys() == {"sigmas", "seed", "value"}
    except (ValueError, AttributeError, RecursionError):
        return False


def origin(path: Path) -> tuple[str, int, list[str | None]] | None:
    """What a checkpoint was trained by, on how many images, and the files that it comes from."""
    try:
        found = read_header(path)
    except (BadFile, MissingInput):
        return None
    return found.method, found.images, [each.get("sha256") for each in found.parents]


def reference(options: SearchSigmasOptions, features: Features, console: Console) -> Statistics:
    """What the images are compared with, measured once."""
    side = open_images(options.ref, options.batch, features.name)
    found = statistics_of(side, features, None, console)
    check_comparable(found, expected_statistics(features))
    warn_of_few(found.data, found.n, len(found.mean), console)
    return found


@dataclass
class FrechetMeasure:
    """The Frechet distance of a model's images at some sigmas after its highest, a function of them and the seed.

    Every measurement goes into ``trace``, and into ``file`` as a line of JSON as soon as it is made.
    """

    model: LoadedModel[Denoiser]
    features: Features
    target: Statistics
    options: SearchSigmasOptions
    file: Path
    trace: list[dict[str, Any]] = field(default_factory=list)
    update: Callable[[int], None] = lambda images: None

    def __post_init__(self) -> None:
        write_bytes(self.file, b"")  # a file that cannot be written is found before an hour is spent

    def __call__(self, sigmas: Sequence[float], seed: int | None = None) -> float:
        options, header, moments = self.options, self.model.header, Moments()
        visited = torch.tensor([header.sigma_max, *sigmas], dtype=torch.float64)
        first = options.seed if seed is None else seed
        setup = SamplerSetup(multistep_sampler(header, visited))
        for batch in SamplingPipeline(self.model, setup, batch=options.batch)(range(first, first + options.n)):
            moments.update(self.features(batch.images))
            self.update(len(self.trace) * options.n + moments.n)
        value = frechet_distance(moments, self.target)
        self._note({"sigmas": visited.tolist(), "seed": first, "value": value})
        return value

    def _note(self, record: dict[str, Any]) -> None:
        self.trace.append(record)
        with write_file(self.file), self.file.open("a", encoding="utf-8", newline="\n") as file:
            file.write(dump_json(record) + "\n")


def find_sigmas(measure: FrechetMeasure, console: Console) -> tuple[Trial, Trial]:
    """The first trial and the best, which may be the first."""
    header, options = measure.model.header, measure.options
    start = tuple(recommended_sigmas(header, options.steps).tolist()[1:])
    trials = search(measure, start, (header.sigma_max, header.sigma_min), options.within, options.tolerance)
    seen, budget = [], options.budget or default_budget(header, options)
    with console.progress(budget * options.n, "images", "sigmas") as progress:
        measure.update = progress.update
        for trial in islice(trials, budget):
            seen.append(trial)
            best = min(seen, key=lambda each: each.value)
            progress.update(len(seen) * options.n, measured=len(seen), best=best.value)
    return seen[0], min(seen, key=lambda each: each.value)


def default_budget(header: Header, options: SearchSigmasOptions) -> int:
    """Measurements of a few rounds; a single sigma takes one round."""
    each = measurements(math.log(header.sigma_min), math.log(header.sigma_max), options.within)
    searched = options.steps - 1
    return 1 + each * searched * (1 if searched == 1 else ROUNDS)


def confirm(measure: FrechetMeasure, first: Trial, best: Trial, console: Console) -> dict[str, Any]:
    """Both once more, from noise that the search did not see: the best of many measurements is partly luck."""
    options = measure.options
    seed = options.seed + options.n
    with console.progress(2 * options.n, "images", "sigmas, other noise") as progress:
        done = len(measure.trace) * options.n
        measure.update = lambda images: progress.update(images - done)
        before, after = (measure(trial.sigmas, seed) for trial in (first, best))
    if after >= before:
        console.warn(f"other noise does not confirm the gain: {before:.6g} became {after:.6g}; try a larger -n")
    return {"seed": seed, "start": before, "found": after}
