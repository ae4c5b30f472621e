"""Whether a model learned its training images by heart: the nearest of them to each image that it makes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from cmtool.evaluation.metric import FEATURES, NEAREST, Comparison, Metric, Score
from cmtool.evaluation.precision_recall import nearest, radii
from cmtool.evaluation.statistics import NearestPair

__all__ = ["Memorization", "memorization"]


@dataclass
class Memorization:
    """Images as they come, held against the features of the training set [M, D].

    An image is suspicious when it lies closer to a training image than that one lies to any other training image.
    Of held-out images this holds for about half: it is the chance that two points are each other's nearest, from 2/3
    on a line to 1/2 in many dimensions. Of copies it holds for nearly all.
    Alaa et al. 2022, arXiv:2102.08921, section 3.3 (their authenticity is 1 - ``share``).
    ``pairs`` are the ``kept`` closest ones, the closest first.
    """

    training: Tensor
    kept: int = 16
    n: int = 0
    suspicious: int = 0
    pairs: list[NearestPair] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.own = radii(self.training, 1)

    def update(self, images: Tensor | Sequence[Tensor], features: Tensor) -> None:
        """Add images [B, ...], or as many [C, H, W], with their features [B, D]."""
        squares, indices = nearest(features.to(self.training), self.training)
        self.suspicious += int((squares < self.own[indices]).sum())
        order = squares.argsort()[: self.kept].tolist()
        found = [
            NearestPair(self.n + i, int(indices[i]), float(squares[i]) ** 0.5, images[i].cpu().clone()) for i in order
        ]
        self.pairs = sorted([*self.pairs, *found], key=lambda pair: (pair.distance, pair.made))[: self.kept]
        self.n += len(images)

    @property
    def share(self) -> float:
        """The share of suspicious images."""
        return self.suspicious / self.n


def memorization() -> Metric:
    """The share of images that lie closer to a training image than that one lies to any other.

    Formula: ``share of x with |x - t| < min |t - t'|``, t the training image nearest to x.
    Paper: Alaa et al. 2022, arXiv 2102.08921, section 3.3 (their authenticity is 1 - share).
    Use: to see whether a model copies; about half is honest, nearly all are copies. The reference is the training set.
    """

    def compute(pair: Comparison) -> Iterator[Score]:
        found = pair.samples.nearest
        assert found is not None
        close = [{"image": each.made, "training": each.training, "distance": each.distance} for each in found.pairs]
        yield Score("memorization", found.share, {"nearest": close})

    return Metric(compute, frozenset({NEAREST}), frozenset({FEATURES}))
