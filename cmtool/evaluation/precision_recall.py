"""Precision, recall, density and coverage: which images lie near which, in the space of features."""

from collections.abc import Iterator
from typing import Annotated

import torch
from torch import Tensor

from cmtool.errors import UsageError
from cmtool.evaluation.metric import FEATURES, Comparison, Metric, Score
from cmtool.options.plugin_option import Option
from cmtool.options.types import at_least

__all__ = ["nearest", "prdc", "precision_recall", "radii"]

NUMBERS = 1 << 24  # of the block of distances that is held at a time, 128 MB
CLOSE, DENSE = 3, 5  # the neighbours that precision and recall look at, and density and coverage


def prdc(real: Tensor, made: Tensor, close: int = CLOSE, dense: int = DENSE) -> dict[str, float]:
    """How much of ``made`` [N, D] lies among ``real`` [M, D], and how much of ``real`` is covered.

        precision   the share of made points within r_k(x) of some real point x
        recall      the share of real points within r_k(y) of some made point y
        density     (1 / (k N)) times the number of pairs with the made point within r_k of the real one
        coverage    the share of real points x with a made point within r_k(x)

    ``r_k(x)`` is the distance from x to its k-th nearest neighbour in its own set, k ``close`` for the first two and
    ``dense`` for the others. Kynkaanniemi et al. 2019, arXiv:1904.06991, equations 1 and 2; Naeem et al. 2020,
    arXiv:2002.09797, equations 3 and 4.
    """
    near, wide, ours = radii(real, close), radii(real, dense), radii(made, close)
    inside, pairs = 0, 0
    reached, covered = (torch.zeros(len(real), dtype=torch.bool, device=real.device) for _ in range(2))
    for rows, distances in blocks(made, real):
        inside += int((distances <= near).any(dim=1).sum())
        within = distances <= wide
        pairs += int(within.sum())
        covered |= within.any(dim=0)
        reached |= (distances <= ours[rows, None]).any(dim=0)
    precision, density = inside / len(made), pairs / (dense * len(made))
    shares = [float(each.double().mean()) for each in (reached, covered)]
    return {"precision": precision, "recall": shares[0], "density": density, "coverage": shares[1]}


def radii(points: Tensor, k: int) -> Tensor:
    """The squared distance from each point of [N, D] to its k-th nearest other one, float64 [N]; N > k."""
    found = [distances.kthvalue(k + 1, dim=1).values for _, distances in blocks(points, points)]  # the first is itself
    return torch.cat(found)


def nearest(queries: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """The squared distance [N] from each query to the nearest of ``points``, and the number of that point [N]."""
    found = [distances.min(dim=1) for _, distances in blocks(queries, points)]
    return torch.cat([each.values for each in found]), torch.cat([each.indices for each in found])


def blocks(a: Tensor, b: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Squared distances, float64 [rows, len(b)], some rows of ``a`` at a time; ``|u|^2 + |v|^2 - 2 u.v``.

    Both are moved by the mean of ``b`` first, so that close points far from the origin lose no digits.
    """
    centre = b.double().mean(dim=0)
    b = b.double() - centre
    lengths, step = b.square().sum(dim=1), max(1, NUMBERS // len(b))
    for start in range(0, len(a), step):
        some = a[start : start + step].double() - centre
        distances = some.square().sum(dim=1, keepdim=True) + lengths - 2 * some @ b.T
        yield slice(start, start + len(some)), distances.clamp(min=0)


def precision_recall(
    *,
    k: Annotated[int, Option("neighbours that precision and recall look at", at_least(1, 10**4))] = CLOSE,
    k_density: Annotated[int, Option("neighbours that density and coverage look at", at_least(1, 10**4))] = DENSE,
) -> Metric:
    """Precision, recall, density and coverage: how good the images are, and how much of the data they cover.

    Formula: precision is the share of images among the k nearest neighbours of real ones, recall the share of real
    images among those of made ones; density counts the pairs, coverage the real images that have one.
    Paper: Kynkaanniemi et al. 2019, arXiv 1904.06991, equations 1 and 2; Naeem et al. 2020, arXiv 2002.09797,
    equations 3 and 4.
    Use: to tell poor images from missing ones, which one distance does not.
    """

    def compute(pair: Comparison) -> Iterator[Score]:
        samples, reference = pair.rows()
        if min(len(samples), len(reference)) <= max(k, k_density):
            least = max(k, k_density)
            raise UsageError(f"precision, recall, density and coverage need more than {least} images on each side")
        found = prdc(reference, samples, close=k, dense=k_density)
        yield from (Score(name, value) for name, value in found.items())

    return Metric(compute, frozenset({FEATURES}), frozenset({FEATURES}), higher_is_better=True)
