"""Scores of the models of a run while it trains: always the same seeds, the same sampler and the same reference."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cmtool.core.denoiser import Denoiser
from cmtool.errors import Advice, Diverged, Hint, Setting, UsageError
from cmtool.evaluation.metric import SPATIAL
from cmtool.evaluation.metrics import reference_needs
from cmtool.evaluation.reference_statistics import read_statistics, write_statistics
from cmtool.evaluation.statistics import Normal, Statistics
from cmtool.files.atomic import replace_folder, write_file
from cmtool.files.model_format import LoadedModel
from cmtool.options.ema_spec import EMASpec, parse_ema_specs
from cmtool.options.types import Spec
from cmtool.pipelines.distributed import is_main_rank
from cmtool.pipelines.image_sets import ImageSet, find_images, images_of_dataset, loaded_images, warn_of_few
from cmtool.pipelines.reporter import Reporter
from cmtool.pipelines.sampler_setup import set_up_sampler
from cmtool.pipelines.scoring import ScoringPipeline
from cmtool.pipelines.training import current_header
from cmtool.pipelines.training_job import TrainingJob
from cmtool.settings import FidOptions, TrainOptions

__all__ = ["Evaluation", "EvaluationStopped", "ModelEvaluator"]

FEWEST, FOR_EACH_FEATURE = 1_000, 5  # images of a measurement where nothing is said
BATCH = 64  # images at a time
REFERENCE = "eval-ref.npz"


@dataclass(frozen=True)
class Evaluation:
    """What was measured at a number of images: ``scores`` of each metric by the EMA, the first metric first."""

    images: int
    n: int
    scores: Mapping[str, Mapping[EMASpec, float]]
    higher_is_better: bool

    def values(self) -> dict[str, float]:
        """The same under one name each, such as ``eval/FD-small/half-life-1500``."""
        each = ((metric, track, value) for metric, found in self.scores.items() for track, value in found.items())
        return {f"eval/{metric}/{track.name}": value for metric, track, value in each}

    def best(self) -> tuple[str, EMASpec, float] | None:
        """Metric, EMA and value of the best by the first metric; None where no value is finite."""
        for metric, found in self.scores.items():
            finite = [(track, value) for track, value in found.items() if math.isfinite(value)]
            choose = max if self.higher_is_better else min
            return (metric, *choose(finite, key=lambda pair: pair[1])) if finite else None
        return None

    def is_better(self, value: float, than: float) -> bool:
        """Whether the first metric prefers one value to another."""
        return value > than if self.higher_is_better else value < than


class EvaluationStopped(Exception):
    """A signal came first; nothing was measured."""


class ModelEvaluator:
    """Measures the EMAs of a run without disturbing its training: no bit of the run depends on it."""

    def __init__(self, options: TrainOptions, job: TrainingJob, reporter: Reporter):
        """Nothing is measured yet, but all that was asked for is there.

        UsageError for metrics, features, a sampler or an EMA that the model or the run does not have; MissingAsset for
        features whose weights are not here.
        """
        self.options, self.job, self.cores = options, job, torch.get_num_threads()
        self.device = next(job.state.average.model.parameters()).device
        self.tracks = chosen_tracks(options)
        with self.undisturbed():
            self.pipeline = ScoringPipeline(scoring_options(options, job.header.shape, self.device), reporter)
            features = self.pipeline.features
            self.n = options.eval_n or max(FEWEST, FOR_EACH_FEATURE * features.dim)
            self.fid = replace(self.pipeline.options, n=self.n)
            self.pipeline.options = self.fid
            set_up_sampler(current_header(job), self.fid)
            features(blank_images(job.header.shape))  # which may be for points alone
            warn_of_few("evaluation", self.n, features.dim, reporter)

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Random numbers and threads afterwards as before; inside, all threads of the run."""
        before, devices = torch.get_num_threads(), [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.set_num_threads(self.cores)
            try:
                yield
            finally:
                torch.set_num_threads(before)

    def measure_reference(self, folder: Path, reporter: Reporter) -> Statistics:
        """What is compared with, kept in ``folder`` where its moments say all that the metrics need."""
        with self.undisturbed():
            return self._reference(folder, reporter)

    def _reference(self, folder: Path, reporter: Reporter) -> Statistics:
        place, keep = folder / REFERENCE, reference_needs(self.pipeline.metrics) <= {SPATIAL}
        if keep and place.is_file():
            side = ImageSet(REFERENCE, statistics=read_statistics(place, self.pipeline.features.name))
        elif self.options.eval_ref:
            side = find_images(self.options.eval_ref, self.pipeline.features.name, self.fid, reporter)
        else:
            side = images_of_dataset(self.job.dataset, BATCH, self.options.data["name"])
        self.pipeline.check(side)
        found = self.pipeline.reference(side)
        if keep and is_main_rank() and not place.is_file():
            with replace_folder(place) as file, write_file(place):
                write_statistics(file, found)
        return as_stored(found)

    def __call__(
        self,
        models: Mapping[EMASpec, Denoiser],
        reference: Statistics,
        stop: Callable[[], bool],
        reporter: Reporter,
    ) -> Evaluation:
        """The scores now; a model that diverges has none, and is warned of. EvaluationStopped when ``stop`` says so."""
        header, scores = current_header(self.job), {}
        self.pipeline.reporter = Watcher(stop)
        with self.undisturbed():
            for track in self.tracks:
                loaded = LoadedModel(models[track], header, Path(track.name))
                try:
                    found = self.pipeline(loaded_images(loaded, self.fid, self.pipeline.reporter), reference)
                except Diverged as error:
                    reporter.warn(f"no score of the EMA {track} at {header.images:,} images: {error.message}")
                    continue
                for score in found.scores:
                    scores.setdefault(score.metric, {})[track] = score.value
        return Evaluation(header.images, self.n, scores, self.pipeline.metrics[0].higher_is_better)


@dataclass(frozen=True)
class Watcher:
    """The reporter of a measurement: nothing is said each time, and between batches a signal is looked for."""

    stop: Callable[[], bool]

    def say(self, text: Advice) -> None:
        """What there is to say was said at the start."""

    def warn(self, text: Advice) -> None:
        """Likewise."""

    @contextmanager
    def progress(self, total: int | None, unit: str, label: str) -> Iterator["Watcher"]:
        yield self

    def update(self, done: int, **figures: Any) -> None:
        if self.stop():
            raise EvaluationStopped


def scoring_options(options: TrainOptions, shape: Sequence[int], device: torch.device) -> FidOptions:
    """The options of ``fid`` that measure the models of a run."""
    features = Spec({"name": "small" if len(shape) == 3 else "points", **(options.eval_features or {})})
    return FidOptions(
        device=str(device),
        ref=options.eval_ref or options.data["name"],
        features=features,
        metrics=options.eval_metrics,
        steps=options.eval_steps,
        solver=options.eval_solver,
        batch=BATCH,
    )


def blank_images(shape: Sequence[int]) -> Tensor:
    """Two images uint8 [2, C, H, W], or points [2, D]."""
    return torch.zeros(2, *shape, dtype=torch.uint8 if len(shape) == 3 else torch.float32)


def chosen_tracks(options: TrainOptions) -> tuple[EMASpec, ...]:
    """The EMAs to measure; UsageError for one that the run does not keep."""
    kept = parse_ema_specs(options.ema)
    chosen = kept if options.eval_ema is None else parse_ema_specs(options.eval_ema)
    for track in chosen:
        if track not in kept:
            known = ", ".join(map(str, kept))
            raise UsageError(f"the run keeps no EMA {track}", Hint("it keeps {}; add it to {}", known, Setting("ema")))
    return chosen


def as_stored(statistics: Statistics) -> Statistics:
    """As they are when read from the file again: a resumed run measures against the same bits."""
    spatial = statistics.spatial and Normal(statistics.spatial.mean, symmetric(statistics.spatial.covariance))
    return replace(statistics, covariance=symmetric(statistics.covariance), spatial=spatial)


def symmetric(matrix: Tensor) -> Tensor:
    return (matrix + matrix.T) / 2
