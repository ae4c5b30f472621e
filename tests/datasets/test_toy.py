"""Points in the plane: the stated densities integrate to one and are what the points follow."""

from math import pi

import numpy as np
import pytest
import torch
from scipy.stats import chi2

from cmtool.datasets.toy import checkerboard, gaussians, ring
from cmtool.errors import UsageError
from cmtool.options import registry

TOYS = [gaussians, ring, checkerboard]
REACH = 3**0.5  # twice the half-width of the checkerboard, so that its edges fall between cells


def cells(density, bins, fine=20):
    """The probability of each of bins x bins cells over [-REACH, REACH]^2, by the midpoint rule."""
    n = bins * fine
    centre = (torch.arange(n, dtype=torch.float64) + 0.5) * (2 * REACH / n) - REACH
    grid = torch.stack(torch.meshgrid(centre, centre, indexing="ij"), -1)
    p = density(grid.reshape(-1, 2)).reshape(bins, fine, bins, fine).sum((1, 3)) * (2 * REACH / n) ** 2
    return p.numpy()


@pytest.mark.parametrize("toy", TOYS)
def test_the_density_integrates_to_one(toy):
    assert cells(toy().density, 40).sum() == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("toy", TOYS)
def test_the_points_follow_the_density(toy):
    data = toy()
    expected = cells(data.density, 40).ravel() * len(data)
    x = data.batch(range(len(data)))[0].numpy()
    found = np.histogram2d(x[:, 0], x[:, 1], bins=40, range=[(-REACH, REACH)] * 2)[0].ravel()
    often = expected > 10
    seldom = len(data) - found[often].sum(), len(data) - expected[often].sum()
    statistic = ((found - expected)[often] ** 2 / expected[often]).sum()
    statistic += (seldom[0] - seldom[1]) ** 2 / max(seldom[1], 1)
    assert 1e-4 < chi2.sf(statistic, often.sum()) < 1 - 1e-4


@pytest.mark.parametrize("toy", TOYS)
def test_coordinates_have_mean_zero_and_deviation_one_half(toy):
    data = toy()
    x = data.batch(range(len(data)))[0].double()
    assert (x.dtype, data.shape, data[0][0].dtype) == (torch.float64, (2,), torch.float32)
    assert x.mean(0).abs().max() < 5 * 0.5 / len(data) ** 0.5
    assert x.std(0) == pytest.approx([0.5, 0.5], rel=0.01)


@pytest.mark.parametrize("toy", TOYS)
def test_a_point_depends_on_seed_and_index_alone(toy):
    long, short, other = toy(), toy(count=100), toy(seed=1, count=100)
    assert torch.equal(long.points[:100], short.points)
    assert not torch.equal(short.points, other.points)
    x, labels = long.batch([7, 3])
    assert torch.equal(x[1], long[3][0])
    assert (labels is None) == (toy is not gaussians) == (long[3][1] is None)


def test_the_label_is_the_mode():
    data = gaussians(modes=5, spread=0.02)
    assert data.classes == ("0", "1", "2", "3", "4")
    x, labels = data.batch(range(1000))
    turns = torch.atan2(x[:, 1], x[:, 0]) / (2 * pi / 5)
    assert torch.equal(turns.round().long() % 5, labels)


def test_closed_values_of_the_densities():
    # The middle of a mode, of which the neighbours are 2 r sin(pi / 8) away; the centre of the ring; a dark field.
    r = 0.48**0.5
    near = 2 * np.exp(-((2 * r * np.sin(pi / 8)) ** 2) / 0.02)
    assert gaussians().density(torch.tensor([[r, 0.0]])) == pytest.approx((1 + near) / (8 * 2 * pi * 0.01), rel=1e-5)
    wide = ring(spread=0.3).density(torch.zeros(1, 2, dtype=torch.float64))
    assert wide == pytest.approx(np.exp(-0.32 / 0.18) / (2 * pi * 0.09), rel=1e-12)
    assert checkerboard().density(torch.tensor([[-0.5, -0.5], [-0.5, -0.2]])).tolist() == pytest.approx([2 / 3, 0])


def test_what_toys_cannot_do_is_said():
    for toy in TOYS:
        with pytest.raises(UsageError, match="reads nothing"):
            toy("/data")
        with pytest.raises(UsageError):
            registry.build("datasets", {"name": toy.__name__, "count": 0}, None)
    for name, wrong in (("gaussians", {"spread": 0.6}), ("ring", {"spread": 0.0}), ("checkerboard", {"cells": 3})):
        with pytest.raises(UsageError, match=f"of data set '{name}' must be"):
            registry.build("datasets", {"name": name, **wrong}, None)
