"""Mid-training: points and end of a teacher's walk, walked once for all images that share a noise."""

import math
from itertools import pairwise

import pytest
import torch
from expectations import EPS
from oracles import Gaussian
from test_consistency import scaled
from test_exact import LINES, spread
from torch import Tensor

from cmtool.core.sigma_schedules import log_uniform
from cmtool.errors import UsageError
from cmtool.objectives.cmt import cmt, distinct
from cmtool.objectives.objective import Batch
from cmtool.options import registry


class Counting:
    """A denoiser that counts the rows it is asked about."""

    def __init__(self, data):
        self.data, self.rows, self.labels = data, 0, []

    def __call__(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        self.rows += len(x)
        self.labels.append(labels)
        return self.data(x, sigma)


def shared(n: int, each: int) -> Batch:
    """Pictures and noises that ``each`` images in a row share."""
    generator = torch.Generator().manual_seed(1)
    x, z = (torch.randn(n, 2, generator=generator, dtype=torch.float64).repeat_interleave(each, 0) for _ in "xz")
    u = (torch.arange(n * each, dtype=torch.float64) * 0.37) % 1
    return Batch(x, z, u, labels=torch.arange(n).repeat_interleave(each))


@pytest.mark.parametrize("name", LINES)
def test_the_loss_of_the_exact_function_falls_with_the_error_of_the_walk(name):
    """DPM-Solver++ 2M is of order 2; the end of each walk is what its error is measured at."""
    data = LINES[name]
    losses = [
        cmt(data, steps=n, metric="l1").loss(data.student(EPS), spread(data, 300), 0.0).mean().item()
        for n in (64, 128, 256)
    ]
    slopes = [math.log2(coarse / fine) for coarse, fine in pairwise(losses)]
    assert slopes == pytest.approx([2, 2], abs=0.15)


def test_each_image_is_a_point_of_its_walk():
    data, b = Gaussian(0.1, 0.5), shared(3, 4)
    objective, model = cmt(data, steps=8, metric="l2"), scaled(0.7)
    grid = log_uniform(9, EPS, 80.0)
    k = (b.u * 8).long()
    x_t, x_end = objective.trajectory(b, k)
    start = b.x + 80 * b.z
    assert torch.allclose(x_t[k == 0], start[k == 0])
    # of the walk itself nothing is exact but its order: it follows the trajectory through its own start
    assert (x_t - data.flow(start, 80.0, grid[k])).abs().max() < 0.2
    loss = objective.loss(model, b, 0.0)
    assert torch.allclose(loss, (0.7 * x_t - x_end).square().mean(1), rtol=1e-6)
    assert model.asked == [grid[k].tolist()]
    assert k.max() == 7, "the end of the walk is no point to learn"


def test_images_of_one_noise_share_a_walk():
    """The same numbers as one walk for each, at a fraction of the teacher's evaluations, wherever the batch is cut."""
    b = shared(5, 16)
    together, apart = Counting(Gaussian(0.1, 0.5)), Counting(Gaussian(0.1, 0.5))
    model = scaled(0.7)
    whole = cmt(together).loss(model, b, 0.0)
    singly = torch.cat([cmt(apart).loss(model, piece, 0.0) for piece in b.split(1)])
    assert torch.allclose(whole, singly, rtol=1e-12)
    assert (together.rows, apart.rows) == (5 * 16, 80 * 16)
    assert together.labels[0].tolist() == [0, 1, 2, 3, 4]
    assert cmt(together, steps=12).requirements.points_per_trajectory == 12


def test_runs_of_equal_rows():
    first, each = distinct(torch.tensor([[1.0, 2], [1, 2], [1, 3], [1, 2], [1, 2], [0, 0]]))
    assert first.tolist() == [0, 2, 3, 5]
    assert each.tolist() == [0, 0, 1, 2, 2, 3]


def test_mistakes_are_named():
    with pytest.raises(UsageError, match="must be at least 1, not 0"):
        registry.build("distill", {"name": "cmt", "steps": 0}, Gaussian())
