"""What the Frechet distance would be with endless images: its bias, which falls as 1/n, taken off."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from cmtool.errors import UsageError
from cmtool.evaluation.frechet import Moments, frechet_distance
from cmtool.evaluation.metric import FEATURES, Comparison, Metric, Score
from cmtool.evaluation.statistics import Gaussian
from cmtool.options.plugin_option import Option
from cmtool.options.types import at_least

__all__ = ["Extrapolation", "extrapolate", "fid_infinity", "fit_line"]

GROUPS, POINTS, RESAMPLES = 20, 5, 20
STUDENT = 2.093  # 95 % of Student's t with GROUPS - 1 degrees of freedom lie within
FEWEST = 4  # groups in the smallest set that is measured


@dataclass(frozen=True)
class Extrapolation:
    """The value at 1/n = 0, the interval around it, and what was measured: pairs (n, distance)."""

    value: float
    low: float
    high: float
    measured: list[tuple[int, float]]


def extrapolate(
    rows: Tensor, reference: Gaussian, *, points: int = POINTS, resamples: int = RESAMPLES, seed: int = 0
) -> Extrapolation:
    """FD-infinity of features [N, D], by a line through the distances of sets of several sizes, fitted in 1/n.

    The images are dealt into 20 groups at random; a set is some of the groups. For the interval of 95 %, groups are
    drawn with replacement and the line is fitted again, ``resamples`` times: with the deviation s of what comes out it
    is ``value -+ 2.093 s sqrt(20 / 19)``. UsageError for fewer than 80 images.
    Chong and Forsyth 2020, arXiv:1911.07023, section 3; Efron and Tibshirani 1993, sections 6 and 12.
    """
    if len(rows) < FEWEST * GROUPS:
        raise UsageError(f"an extrapolation needs at least {FEWEST * GROUPS} images, not {len(rows)}")
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(rows), generator=generator).to(rows.device)
    groups = [_moments(rows[some]) for some in order.tensor_split(GROUPS)]
    measured = _measure(groups, reference, points)
    drawn = (torch.randint(GROUPS, (GROUPS,), generator=generator).tolist() for _ in range(resamples))
    again = [fit_line(_measure([groups[i] for i in some], reference, points)) for some in drawn]
    deviation = float(torch.tensor(again, dtype=torch.float64).std()) * (GROUPS / (GROUPS - 1)) ** 0.5
    value = fit_line(measured)
    return Extrapolation(value, value - STUDENT * deviation, value + STUDENT * deviation, measured)


def fit_line(measured: Sequence[tuple[int, float]]) -> float:
    """Where the line through (1/n, distance), by least squares, meets 1/n = 0."""
    x = torch.tensor([1 / n for n, _ in measured], dtype=torch.float64)
    y = torch.tensor([value for _, value in measured], dtype=torch.float64)
    slope = ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()
    return float(y.mean() - slope * x.mean())


def _measure(groups: Sequence[Moments], reference: Gaussian, points: int) -> list[tuple[int, float]]:
    """Distances of the first groups, from a few of them to all, at sizes that are even in 1/n."""
    ends = torch.linspace(1 / FEWEST, 1 / len(groups), points, dtype=torch.float64)
    sizes = sorted({round(1 / float(end)) for end in ends})
    seen, found = Moments(), []
    for count, group in enumerate(groups, 1):
        seen.merge(group)
        if count in sizes:
            found.append((seen.n, frechet_distance(seen, reference)))
    return found


def _moments(rows: Tensor) -> Moments:
    seen = Moments()
    seen.update(rows)
    return seen


def fid_infinity(
    *,
    points: Annotated[int, Option("sizes of sets that the line goes through", at_least(2, 16))] = POINTS,
    resamples: Annotated[int, Option("resamples of the bootstrap interval", at_least(2, 10**5))] = RESAMPLES,
) -> Metric:
    """The Frechet distance with endless images: its bias, which falls as 1/n, is taken off.

    Formula: where the line through (1/n, distance of n images) meets 1/n = 0, with a bootstrap interval of 95 %.
    Paper: Chong and Forsyth 2020, arXiv 1911.07023, section 3.
    Use: to compare sets of different or small sizes; 80 images at least.
    """

    def compute(pair: Comparison) -> Iterator[Score]:
        assert pair.samples.rows is not None
        found = extrapolate(pair.samples.rows, pair.reference, points=points, resamples=resamples, seed=pair.seed)
        yield Score(f"{pair.label}-infinity", found.value, {"low": found.low, "high": found.high})

    return Metric(compute, frozenset({FEATURES}))
