"""The Inception Score: how sure a classifier is of each image, and how many classes it sees."""

from collections.abc import Iterator

import torch
from torch import Tensor

from cmtool.evaluation.metric import PROBABILITIES, Comparison, Metric, Score

__all__ = ["InceptionScore", "inception_score"]

SPLIT = 5000  # images that are scored together, as guided-diffusion and the first paper's tools do of 50,000


class InceptionScore:
    """Probabilities of images as they come, scored in splits of 5,000 in that order.

        exp( mean_x KL( p(y | x) || p(y) ) ),    p(y) = mean_x p(y | x)

    ``mean`` and ``spread`` (the standard deviation, divided by the number) are over the splits; the last may be
    shorter. Salimans et al. 2016, arXiv:1606.03498, section 4.
    """

    def __init__(self, split: int = SPLIT):
        self.split, self.done = split, []
        self._begin()

    def update(self, probabilities: Tensor) -> None:
        """Add the rows of [B, classes], each of which sums to 1."""
        rows = probabilities.double()
        for row in rows:  # one by one, so that no batch rounds otherwise than another
            self.n += 1
            self.total = self.total + row
            self.information = self.information + torch.xlogy(row, row).sum()
            if self.n == self.split:
                self.done.append(self._score())
                self._begin()

    @property
    def scores(self) -> Tensor:
        """The score of each split, float64."""
        return torch.tensor(self.done + ([self._score()] if self.n else []), dtype=torch.float64)

    @property
    def mean(self) -> float:
        return float(self.scores.mean())

    @property
    def spread(self) -> float:
        return float(self.scores.std(correction=0))

    def _begin(self) -> None:
        self.n = 0
        self.total = self.information = torch.zeros((), dtype=torch.float64)

    def _score(self) -> float:
        """``mean_x sum_y p log p(y|x) - sum_y p(y) log p(y)``, the same divergence with the sums pulled apart."""
        share = self.total / self.n
        return float((self.information / self.n - torch.xlogy(share, share).sum()).exp())


def inception_score() -> Metric:
    """The Inception Score: how sure a classifier is of each image, times how many classes it sees.

    Formula: ``exp(mean_x KL(p(y|x) || p(y)))``, in splits of 5,000 images, with the deviation over the splits.
    Paper: Salimans et al. 2016, arXiv 1606.03498, section 4.
    Use: to compare with published numbers; it looks at no reference. Needs ``inception``.
    """

    def compute(pair: Comparison) -> Iterator[Score]:
        scores = pair.samples.scores
        assert scores is not None
        spread = float(scores.std(correction=0))
        yield Score("IS", float(scores.mean()), {"spread": spread, "splits": len(scores)})

    return Metric(compute, frozenset({PROBABILITIES}), higher_is_better=True)
