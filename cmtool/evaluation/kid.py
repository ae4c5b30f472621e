"""The kernel distance between two sets of features: KID on Inception features."""

from collections.abc import Iterator
from typing import Annotated

import torch
from torch import Tensor

from cmtool.evaluation.metric import FEATURES, Comparison, Metric, Score
from cmtool.options.plugin_option import Option
from cmtool.options.types import at_least

__all__ = ["kernel_distance", "kid", "squared_mmd"]


def squared_mmd(x: Tensor, y: Tensor) -> float:
    """The unbiased estimate of the squared maximum mean discrepancy of ``x`` [M, D] and ``y`` [N, D].

        mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_{ij} k(x_i, y_j),    k(u, v) = (u.v / D + 1)^3

    Gretton et al. 2012, equation 3, with the kernel of Binkowski et al. 2018, arXiv:1801.01401, section 4.
    """
    x, y = x.double(), y.double()
    return float(_off_diagonal_mean(_kernel(x, x)) + _off_diagonal_mean(_kernel(y, y)) - 2 * _kernel(x, y).mean())


def kernel_distance(a: Tensor, b: Tensor, *, subsets: int = 100, size: int = 1000, seed: int = 0) -> float:
    """The mean of ``squared_mmd`` over random subsets of ``a`` [M, D] and ``b`` [N, D] with ``size`` rows each.

    Subsets are drawn without replacement and are smaller where a set is. Unbiased at any number of images; it may
    come out slightly negative for equal distributions.
    """
    generator = torch.Generator().manual_seed(seed)
    size = min(size, len(a), len(b))

    def draw(rows: Tensor) -> Tensor:
        return rows[torch.randperm(len(rows), generator=generator)[:size].to(rows.device)]

    return sum(squared_mmd(draw(a), draw(b)) for _ in range(subsets)) / subsets


def _kernel(u: Tensor, v: Tensor) -> Tensor:
    return (u @ v.T / u.shape[1] + 1) ** 3


def _off_diagonal_mean(matrix: Tensor) -> Tensor:
    n = len(matrix)
    return (matrix.sum() - matrix.trace()) / (n * (n - 1))


def kid(
    *,
    subsets: Annotated[int, Option("random subsets whose distances are averaged", at_least(1, 10**6))] = 100,
    size: Annotated[int, Option("images in each, of each side", at_least(2))] = 1000,
) -> Metric:
    """The kernel distance, the squared maximum mean discrepancy of the features: KID on those of Inception.

    Formula: ``E k(x, x') + E k(y, y') - 2 E k(x, y)``, ``k(u, v) = (u.v / D + 1)^3``
    Paper: Binkowski et al. 2018, arXiv 1801.01401, section 4.
    Use: with few images: it is unbiased at any number of them, and may come out slightly below 0.
    """

    def compute(pair: Comparison) -> Iterator[Score]:
        samples, reference = pair.rows()
        value = kernel_distance(samples, reference, subsets=subsets, size=size, seed=pair.seed)
        yield Score(pair.label.replace("F", "K", 1), value, {"subsets": subsets})

    return Metric(compute, frozenset({FEATURES}), frozenset({FEATURES}))
