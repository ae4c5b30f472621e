"""What a metric has to be."""

import math

import torch

from cmtool.evaluation.frechet import Moments
from cmtool.evaluation.inception_score import InceptionScore
from cmtool.evaluation.memorization import Memorization
from cmtool.evaluation.metric import FEATURES, NEAREST, PROBABILITIES, SPATIAL, Comparison, Metric, Score
from cmtool.evaluation.statistics import Normal, Statistics
from cmtool.testing.common import fix_seed, require

__all__ = ["check_metric"]

IMAGES, WIDTH, CLASSES = 120, 6, 4


@fix_seed()
def check_metric(metric: Metric) -> None:
    """``metric.compute(comparison)`` gives finite scores, each under a name, from what it says it needs and no more.

    It is tried on 120 images with six features; calls are repeatable.
    """
    known = {FEATURES, NEAREST, PROBABILITIES, SPATIAL}
    for needs in (metric.needs, metric.reference_needs):
        require(needs <= known, f"a metric needs some of {', '.join(sorted(known))}, and not {sorted(needs - known)}")
    real = torch.randn(IMAGES, WIDTH)
    made = torch.randn(IMAGES, WIDTH) + 0.1
    pair = Comparison(_statistics(made, metric.needs, real), _statistics(real, metric.reference_needs, real), "FD-x")
    scores = list(metric.compute(pair))
    require(bool(scores), "a metric gives one score at least")
    for score in scores:
        require(isinstance(score, Score) and bool(score.metric), f"a score has a name and a value, not {score!r}")
        require(math.isfinite(score.value), f"the value of {score.metric} is finite, and not {score.value}")
    names = [score.metric for score in scores]
    require(len(set(names)) == len(names), f"each score has a name of its own: {', '.join(names)}")
    require([each.value for each in metric.compute(pair)] == [each.value for each in scores], "scores are repeatable")


def _statistics(rows: torch.Tensor, needs: frozenset[str], training: torch.Tensor) -> Statistics:
    """Of rows [N, D], with what is needed and nothing else."""
    moments, score, nearest = Moments(), InceptionScore(), Memorization(training)
    moments.update(rows)
    score.update(torch.randn(len(rows), CLASSES).softmax(1))
    nearest.update(torch.zeros(len(rows), 1, 4, 4, dtype=torch.uint8), rows)
    seen = {
        FEATURES: rows,
        SPATIAL: Normal(moments.mean, moments.covariance),
        PROBABILITIES: score.scores,
        NEAREST: nearest,
    }
    return Statistics(moments.mean, moments.covariance, len(rows), **{key: seen[key] for key in needs})
