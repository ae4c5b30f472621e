"""FID and other metrics of images: ``cmtool.score`` and the command ``fid``."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from torch import Tensor

from cmtool.assets import find
from cmtool.core.denoiser import Denoiser
from cmtool.errors import Hint, Run, Setting, UsageError
from cmtool.evaluation.metric import NEAREST, SPATIAL, Comparison, Metric, Score
from cmtool.evaluation.metrics import build_metrics, check_features, compute, needs, reference_needs
from cmtool.evaluation.reference_statistics import check_comparable
from cmtool.evaluation.statistics import Statistics
from cmtool.features import Features
from cmtool.files.model_format import LoadedModel
from cmtool.options import registry
from cmtool.options.call import options_of_call
from cmtool.options.types import Spec
from cmtool.pipelines.image_sets import (
    ImageSet,
    array_images,
    expected_statistics,
    find_images,
    loaded_images,
    statistics_of,
    warn_of_few,
)
from cmtool.pipelines.reporter import Reporter, Silence
from cmtool.pipelines.sampling_pipeline import SampleBatch
from cmtool.settings import FidOptions
from cmtool.settings.scoring import PROTOCOLS
from cmtool.training.devices import choose_device

__all__ = ["Scores", "ScoringPipeline", "choose_features", "score"]

Batch: TypeAlias = Tensor | np.ndarray | SampleBatch
Images: TypeAlias = str | Path | Tensor | np.ndarray | LoadedModel[Denoiser] | Iterable[Batch]


@dataclass(frozen=True)
class Scores:
    """The scores of some images, in the order of the metrics, and the statistics that they come from.

    ``scores["FID"]`` is the value of that name; ``remarks`` are what a user should know, a sentence each.
    """

    scores: tuple[Score, ...]
    samples: Statistics
    reference: Statistics
    remarks: tuple[str, ...] = ()

    def __getitem__(self, metric: str) -> float:
        found = {score.metric: score.value for score in self.scores}
        return found[metric]

    @property
    def value(self) -> float:
        """The first score."""
        return self.scores[0].value


class ScoringPipeline:
    """Features and metrics, with which sets of images are compared."""

    def __init__(self, options: FidOptions, reporter: Reporter):
        """UsageError where the features cannot tell what a metric needs, MissingAsset where their weights lack."""
        self.options, self.reporter = options, reporter
        spec = choose_features(options, reporter)
        self.features: Features = registry.build("features", spec, device=str(choose_device(options.device)))
        self.metrics: list[Metric] = build_metrics(options.metrics)
        check_features(self.features, needs(self.metrics) | reference_needs(self.metrics))

    def check(self, *sides: ImageSet) -> None:
        """UsageError, before anything is computed, for statistics of other features."""
        for side in sides:
            if side.statistics:
                check_comparable(side.statistics, expected_statistics(self.features))

    def reference(self, side: ImageSet) -> Statistics:
        """What the images are compared with, measured once; a few images are warned of."""
        found = statistics_of(side, self.features, None, self.reporter, reference_needs(self.metrics))
        warn_of_few(found.data, found.n, self.features.dim, self.reporter)
        return found

    def __call__(self, side: ImageSet, reference: Statistics) -> Scores:
        """The scores of the first ``n`` images; UsageError where statistics do not say what a metric needs."""
        wanted = needs(self.metrics)
        training = reference.rows if NEAREST in wanted else None
        made = statistics_of(side, self.features, self.options.n, self.reporter, wanted, training)
        warn_of_few(made.data, made.n, self.features.dim, self.reporter)
        check_comparable(made, reference)
        pair = Comparison(made, reference, self.features.label, self.options.seed)
        return Scores(tuple(compute(self.metrics, pair)), made, reference)

    def moments(self, side: ImageSet) -> Statistics:
        """Mean and covariance of the first ``n`` images, for others to compare with; spatial ones where there are."""
        wanted = frozenset({SPATIAL} & set(self.features.further))
        found = statistics_of(side, self.features, self.options.n, self.reporter, wanted)
        warn_of_few(found.data, found.n, self.features.dim, self.reporter)
        return found


def choose_features(options: FidOptions, reporter: Reporter) -> Spec:
    """The features that are asked for, by themselves or through a protocol; UsageError when the two disagree.

    When nothing at all was said, and FID's weights are not there, they are ``small``, and that is said.
    """
    spec = options.features
    if options.protocol is None:
        return spec if options.ref or spec != Spec(name="inception") else _affordable(spec, reporter)
    protocol, flag = PROTOCOLS[options.protocol], Setting("protocol", options.protocol)
    wanted = {"network": protocol.network, "mode": protocol.mode}
    if spec.name != "inception":
        other = f"measures FID, and the features '{spec.name}' are not Inception's"
        raise UsageError(Hint("{} {}", flag, other), "leave one of them out")
    for key, value in wanted.items():
        if spec.get(key, value) != value:
            other = f"means features.{key}={value}, not {spec[key]}"
            raise UsageError(Hint("{} {}", flag, other), "leave one of them out")
    return Spec({**spec, **wanted})


def _affordable(spec: Spec, reporter: Reporter) -> Spec:
    if find(registry.get("assets", "inception")):
        return spec
    fetch = Run("fetch", "inception")
    reporter.warn(Hint("FID's network is not here, so this is FD-small, which is no FID; '{}' gets it", fetch))
    return Spec(name="small")


def score(
    images: Images,
    reference: Images,
    *,
    metrics: Sequence[str | Mapping[str, Any]] | None = None,
    features: str | Mapping[str, Any] | None = None,
    protocol: str | None = None,
    n: int | None = None,
    seed: int | None = None,
    batch: int | None = None,
    device: str | None = None,
) -> Scores:
    """How good images are beside others, as ``cmtool fid`` measures it.

        scores = cmtool.score(cmtool.sample(model, n=10_000), "digits", metrics=("fid", "kid"), features="small")
        scores["FD-small"], scores["KD-small"]

    Both sides are uint8 [N, C, H, W], points float32 [N, D], batches of them as ``cmtool.sample`` gives them, a model,
    or the name of whatever ``cmtool fid`` takes: a folder, an archive, a data set, a checkpoint, statistics. A metric
    with options is ``{"name": "kid", "subsets": 50}``; the other arguments are the options of ``cmtool fid``.
    UsageError for metrics or features that do not go together, MissingAsset where weights must be fetched first,
    MissingInput and BadFile for what cannot be read, Diverged for features that are not finite.
    """
    named = {"metrics": metrics, "features": features, "protocol": protocol}
    rest = {"ref": "the reference", "n": n, "seed": seed, "batch": batch, "device": device}
    options, reporter = options_of_call(FidOptions, {**named, **rest}), Silence()
    pipeline = ScoringPipeline(options, reporter)
    sides = [_side(some, what, pipeline) for some, what in ((images, "the images"), (reference, "the reference"))]
    pipeline.check(*sides)
    found = pipeline(sides[0], pipeline.reference(sides[1]))
    return Scores(found.scores, found.samples, found.reference, tuple(reporter.remarks))


def _side(images: Images, what: str, pipeline: ScoringPipeline) -> ImageSet:
    options, features = pipeline.options, pipeline.features.name
    if isinstance(images, str | Path):
        return find_images(str(images), features, options, pipeline.reporter)
    if isinstance(images, LoadedModel):
        return loaded_images(images, options, pipeline.reporter)
    return array_images(images, what, options.batch)
