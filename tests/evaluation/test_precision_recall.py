"""Precision, recall, density, coverage and memory against scikit-learn's neighbours and closed forms."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from cmtool.evaluation import precision_recall
from cmtool.evaluation.memorization import Memorization
from cmtool.evaluation.precision_recall import nearest, prdc, radii


def clouds(real=90, made=70, d=6, shift=0.4):
    rng = np.random.default_rng(0)
    return rng.normal(size=(real, d)), shift + 0.9 * rng.normal(size=(made, d))


def by_sklearn(real, made, close=3, dense=5):
    def radius(x, k):
        return NearestNeighbors(n_neighbors=k + 1).fit(x).kneighbors(x)[0][:, k]

    distances = NearestNeighbors(n_neighbors=len(real)).fit(real).kneighbors(made, return_distance=True)
    apart = np.empty((len(made), len(real)))
    np.put_along_axis(apart, distances[1], distances[0], axis=1)
    return {
        "precision": (apart <= radius(real, close)).any(1).mean(),
        "recall": (apart <= radius(made, close)[:, None]).any(0).mean(),
        "density": (apart <= radius(real, dense)).sum() / dense / len(made),
        "coverage": (apart <= radius(real, dense)).any(0).mean(),
    }


@pytest.mark.parametrize("numbers", [1 << 24, 200])
def test_the_four_shares_are_those_of_scikit_learn_whatever_the_blocks(monkeypatch, numbers):
    monkeypatch.setattr(precision_recall, "NUMBERS", numbers)
    real, made = clouds()
    got = prdc(torch.from_numpy(real), torch.from_numpy(made))
    assert got == pytest.approx(by_sklearn(real, made), rel=1e-12)
    assert 0 < got["recall"] < 1 and got["density"] > 0


def test_equal_sets_apart_sets_and_a_mode_that_is_missing():
    real, _ = clouds()
    x = torch.from_numpy(real)
    same, apart = prdc(x, x), prdc(x, x + 1000)
    assert (same["precision"], same["recall"], same["coverage"]) == (1, 1, 1)
    assert set(apart.values()) == {0.0}
    modes = torch.cat([x, x + 1000])
    assert prdc(modes, x)["precision"] == 1 and prdc(modes, x)["recall"] == prdc(modes, x)["coverage"] == 0.5


def test_far_from_the_origin_no_digits_are_lost():
    x, y = (torch.from_numpy(each) for each in clouds())
    here, there = nearest(y, x), nearest(y + 1e6, x + 1e6)
    torch.testing.assert_close(there[0], here[0], rtol=1e-7, atol=0)
    assert torch.equal(there[1], here[1])


def test_the_nearest_and_the_kth_radius_on_a_line():
    points = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
    assert radii(points, 1).tolist() == pytest.approx([1, 1, 4, 16])
    assert radii(points, 2).tolist() == pytest.approx([9, 4, 9, 36])
    squares, indices = nearest(torch.tensor([[6.0], [0.4]]), points)
    assert squares.tolist() == pytest.approx([1, 0.16]) and indices.tolist() == [3, 0]


def test_copies_are_remembered_and_independent_draws_are_half_suspicious():
    generator = torch.Generator().manual_seed(0)
    training, fresh = torch.randn(2, 4000, 2, generator=generator)
    images = torch.arange(4000, dtype=torch.uint8).view(-1, 1, 1, 1)
    honest, copying = Memorization(training), Memorization(training, kept=3)
    for some in torch.arange(4000).split(1500):
        honest.update(images[some], fresh[some])
    copying.update(images, training + 1e-4)
    # the chance that two points of a plane are each other's nearest (Clark and Evans 1955)
    mutual = 6 * np.pi / (8 * np.pi + 3 * np.sqrt(3))
    assert honest.n == 4000 and honest.share == pytest.approx(mutual, abs=0.025)
    assert copying.share > 0.98
    assert [pair.made == pair.training for pair in copying.pairs] == [True] * 3
    squares, indices = nearest(fresh, training)
    best = int(squares.argmin())
    assert (honest.pairs[0].made, honest.pairs[0].training) == (best, int(indices[best]))
    assert honest.pairs[0].distance == pytest.approx(float(squares[best]) ** 0.5, abs=1e-9)
    assert torch.equal(honest.pairs[0].image, images[best])
    assert [p.distance for p in honest.pairs] == sorted(p.distance for p in honest.pairs)
