"""What can be said of images: the metrics by name, what each needs to have seen, and how it is computed."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from cmtool.errors import UsageError
from cmtool.evaluation.fid_infinity import extrapolate
from cmtool.evaluation.frechet import frechet_distance
from cmtool.evaluation.inception_score import InceptionScore
from cmtool.evaluation.kid import kernel_distance
from cmtool.evaluation.memorization import Memorization
from cmtool.evaluation.precision_recall import DENSE, prdc
from cmtool.evaluation.reference_statistics import Statistics

__all__ = ["METRICS", "Metric", "lacking", "needs", "values"]

ROWS, SPATIAL, PROBABILITIES, MEMORIZATION = "rows", "spatial", "probabilities", "memory"
SCORES = {"sFID": SPATIAL, "IS": PROBABILITIES}  # what some features do not tell
Row = dict[str, Any]
Values = Iterator[Row]


@dataclass(frozen=True)
class Metric:
    """``compute(made, reference, label, seed)`` gives rows such as ``{"metric": "FID", "value": 3.2}``.

    Besides the moments of the features it uses what ``ours`` names of the images judged, and ``theirs`` of the others;
    ``label`` is what a Frechet distance of the features is called.
    """

    compute: Callable[[Statistics, Statistics, str, int], Values]
    ours: frozenset[str] = frozenset()
    theirs: frozenset[str] = frozenset()


def frechet(made: Statistics, reference: Statistics, label: str, seed: int) -> Values:
    yield {"metric": label, "value": frechet_distance(made, reference)}


def kernel(made: Statistics, reference: Statistics, label: str, seed: int) -> Values:
    a, b = _rows(made), _rows(reference)
    yield {"metric": label.replace("F", "K", 1), "value": kernel_distance(a, b, seed=seed), "subsets": 100}


def spatial(made: Statistics, reference: Statistics, label: str, seed: int) -> Values:
    assert made.spatial and reference.spatial
    yield {"metric": "sFID", "value": frechet_distance(made.spatial, reference.spatial)}


def inception_score(made: Statistics, reference: Statistics, label: str, seed: int) -> Values:
    score = made.score
    assert isinstance(score, InceptionScore)
    yield {"metric": "IS", "value": score.mean, "spread": score.spread, "splits": len(score.scores)}


def neighbourhoods(made: Statistics, reference: Statistics, label: str, seed: int) -> Values:
    if min(len(_rows(made)), len(_rows(reference))) <= DENSE:
        raise UsageError(f"precision, recall, density and coverage need more than {DENSE} images on each side")
    yield from ({"metric": name, "value": value} for name, value in prdc(_rows(reference), _rows(made)).items())


def infinity(made: Statistics, reference: Statistics, label: str, seed: int) -> Values:
    found = extrapolate(_rows(made), reference, seed=seed)
    yield {"metric": f"{label}-infinity", "value": found.value, "low": found.low, "high": found.high}


def memorization(made: Statistics, reference: Statistics, label: str, seed: int) -> Values:
    memory = made.memory
    assert isinstance(memory, Memorization)
    close = [{"image": pair.made, "training": pair.training, "distance": pair.distance} for pair in memory.pairs]
    yield {"metric": "memorised", "value": memory.share, "nearest": close}


METRICS = {
    "fid": Metric(frechet),
    "kid": Metric(kernel, frozenset({ROWS}), frozenset({ROWS})),
    "is": Metric(inception_score, frozenset({PROBABILITIES})),
    "sfid": Metric(spatial, frozenset({SPATIAL}), frozenset({SPATIAL})),
    "prdc": Metric(neighbourhoods, frozenset({ROWS}), frozenset({ROWS})),
    "infinity": Metric(infinity, frozenset({ROWS})),
    "memorised": Metric(memorization, frozenset({MEMORIZATION}), frozenset({ROWS})),
}


def needs(names: Iterable[str]) -> tuple[frozenset[str], frozenset[str]]:
    """What the metrics want to have seen of the images judged, and of the reference."""
    chosen = [METRICS[name] for name in names]
    return frozenset().union(*(each.ours for each in chosen)), frozenset().union(*(each.theirs for each in chosen))


def lacking(statistics: Statistics, wanted: Iterable[str]) -> list[str]:
    """What statistics do not say of that which is wanted."""
    return [what for what in wanted if getattr(statistics, "score" if what == PROBABILITIES else what) is None]


def values(names: Iterable[str], made: Statistics, reference: Statistics, label: str, seed: int) -> list[Row]:
    """Every metric in the order of its name in ``names``."""
    return [row for name in names for row in METRICS[name].compute(made, reference, label, seed)]


def _rows(statistics: Statistics) -> Tensor:
    assert statistics.rows is not None
    return statistics.rows
