"""For walks of thousands of points: noise that is fast to draw, and walks of a Gaussian followed exactly."""

import torch
from torch import Tensor

from cmtool.core.noise import START
from cmtool.core.sampling.sde import ReverseSDE


class Cloud:
    """Stands in for Noise: n rows from one generator for each stream."""

    def __init__(self, n: int, seed: int = 0):
        self.n, self.seed = n, seed

    def normal(self, shape, stream: int = START) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + stream)
        return torch.randn(self.n, *shape, generator=generator, dtype=torch.float64)


class Constant:
    """Stands in for Noise: every draw is these rows."""

    def __init__(self, rows: Tensor):
        self.rows = rows

    def normal(self, shape, stream: int = START) -> Tensor:
        return self.rows


def affine(update, process, score, t: Tensor, s: Tensor) -> tuple[float, float, float]:
    """``c, d, k`` of an update ``c x + d + k z`` that is affine in each number, as all are on a Gaussian."""
    x = torch.tensor([[0.0], [1.0], [0.0]], dtype=torch.float64)
    z = torch.tensor([[0.0], [0.0], [1.0]], dtype=torch.float64)
    moved, _ = update(ReverseSDE(process, score, Constant(z)), x, t, s)  # type: ignore[arg-type]
    d, one, k = moved.flatten().tolist()
    return one - d, d, k - d
