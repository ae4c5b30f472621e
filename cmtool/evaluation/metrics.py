"""Several metrics of one pass over the images: what all of them need, and all their scores."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cmtool.errors import Hint, Setting, UsageError
from cmtool.evaluation.metric import PROBABILITIES, SPATIAL, Comparison, Metric, Score
from cmtool.evaluation.statistics import Statistics
from cmtool.features import Features
from cmtool.options import registry

__all__ = ["build_metrics", "check_features", "compute", "missing", "needs", "reference_needs"]

NAMES = {SPATIAL: "sFID", PROBABILITIES: "IS"}  # the metrics that not all features can tell


def build_metrics(specs: Iterable[str | Mapping[str, Any]]) -> list[Metric]:
    """The metrics of ``"fid"`` or ``{"name": "kid", "subsets": 50}``; UsageError for an unknown name or option."""
    return [registry.build("metrics", spec) for spec in specs]


def needs(metrics: Iterable[Metric]) -> frozenset[str]:
    """What they use of the images measured, besides the moments of their features."""
    return frozenset().union(*(metric.needs for metric in metrics))


def reference_needs(metrics: Iterable[Metric]) -> frozenset[str]:
    """What they use of the reference."""
    return frozenset().union(*(metric.reference_needs for metric in metrics))


def check_features(features: Features, needs: Iterable[str]) -> None:
    """UsageError, before an hour is spent, when the features lack what a metric needs."""
    names = {SPATIAL: "spatial", PROBABILITIES: "probabilities"}
    for what, metric in NAMES.items():
        if what in needs and names[what] not in features.further:
            raise UsageError(
                f"{metric} looks at more of the network than the features '{features.name}' show",
                Hint("inception shows it: {} {}", Setting("features", "inception"), Setting("features.network", "pth")),
            )


def missing(statistics: Statistics, needs: Iterable[str]) -> list[str]:
    """What statistics do not say of that which is needed."""
    return [what for what in needs if getattr(statistics, what) is None]


def compute(metrics: Sequence[Metric], comparison: Comparison) -> list[Score]:
    """The scores of every metric, in their order."""
    return [score for metric in metrics for score in metric.compute(comparison)]
