"""The contract of a metric: what it needs to have seen of the images, and the numbers it makes of that.

A metric is a function ``(*, **options) -> Metric`` in the entry-point group ``cmtool.metrics``.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from cmtool.evaluation.statistics import Statistics

__all__ = ["FEATURES", "NEAREST", "PROBABILITIES", "SPATIAL", "Comparison", "Metric", "Score"]

# What a metric may need besides the moments of the features: a field of Statistics each.
FEATURES, SPATIAL, PROBABILITIES, NEAREST = "rows", "spatial", "scores", "nearest"


@dataclass(frozen=True)
class Score:
    """A number with its name, and what belongs to it, such as the ends of an interval."""

    metric: str
    value: float
    details: Mapping[str, Any] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {"metric": self.metric, "value": self.value, **self.details}


@dataclass(frozen=True)
class Comparison:
    """What a metric is computed from.

    ``samples`` are the statistics of the images measured, ``label`` what a Frechet distance of the features is called
    (FID, FD-small), ``seed`` that of random subsets.

    Both sides have ``mean`` [D] and ``covariance`` [D, D] of the features, the rest of ``Statistics`` where needed.
    """

    samples: Statistics
    reference: Statistics
    label: str
    seed: int = 0

    def rows(self) -> tuple[Tensor, Tensor]:
        """The features of both sides, [N, D] and [M, D]; only of a metric that needs FEATURES of both."""
        assert self.samples.rows is not None and self.reference.rows is not None
        return self.samples.rows, self.reference.rows


@dataclass(frozen=True)
class Metric:
    """``compute(comparison)`` gives one or several scores.

    ``needs`` names what it uses of the images measured besides the moments of their features, ``reference_needs`` of
    those they are compared with: FEATURES, SPATIAL, PROBABILITIES or NEAREST. ``higher_is_better`` says of which of two
    models the first score is better.
    """

    compute: Callable[[Comparison], Iterator[Score]]
    needs: frozenset[str] = frozenset()
    reference_needs: frozenset[str] = frozenset()
    higher_is_better: bool = False
