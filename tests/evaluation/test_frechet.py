import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from cmtool.evaluation.frechet import Moments, frechet_distance


def gaussian(mean, covariance):
    return SimpleNamespace(mean=torch.as_tensor(mean), covariance=torch.as_tensor(covariance))


def sample(n, d, seed):
    generator = torch.Generator().manual_seed(seed)
    scales = torch.logspace(0, -2, d, dtype=torch.float64)
    mix = torch.randn(d, d, generator=generator, dtype=torch.float64) / d**0.5
    moments = Moments()
    moments.update(torch.randn(n, d, generator=generator, dtype=torch.float64) * scales @ mix + 0.1 * seed)
    return moments


def by_sqrtm(a, b):
    root = sqrtm(a.covariance.numpy() @ b.covariance.numpy())
    spread = a.covariance.trace() + b.covariance.trace() - 2 * np.trace(root).real
    return float((a.mean - b.mean).square().sum() + spread)


def test_one_dimension_is_the_distance_of_means_and_deviations():
    a, b = gaussian([1.0], [[4.0]]), gaussian([-2.0], [[0.25]])
    assert frechet_distance(a, b) == pytest.approx(3.0**2 + (2.0 - 0.5) ** 2, rel=1e-14)


def test_commuting_covariances_compare_axis_by_axis():
    generator = torch.Generator().manual_seed(1)
    axes, _ = torch.linalg.qr(torch.randn(9, 9, generator=generator, dtype=torch.float64))
    sizes = torch.rand(2, 9, generator=generator, dtype=torch.float64)
    a, b = (gaussian(torch.full((9,), m), (axes * s**2) @ axes.T) for m, s in zip((0.0, 0.5), sizes, strict=True))
    expected = 9 * 0.5**2 + (sizes[0] - sizes[1]).square().sum()
    assert frechet_distance(a, b) == pytest.approx(float(expected), rel=1e-12)


def test_a_linear_map_of_a_gaussian_is_moved_optimally_by_its_symmetric_part():
    # x -> T x with T symmetric positive is the optimal transport, so the distance is E |x - T x|^2 = tr (1-T) S (1-T)
    generator = torch.Generator().manual_seed(2)
    m, n = torch.randn(2, 20, 20, generator=generator, dtype=torch.float64)
    covariance, move = m @ m.T, n @ n.T / 20
    rest = torch.eye(20, dtype=torch.float64) - move
    a, b = gaussian(torch.zeros(20), covariance), gaussian(torch.zeros(20), move @ covariance @ move)
    assert frechet_distance(a, b) == pytest.approx(float((rest @ covariance @ rest).trace()), rel=1e-10)


def test_it_agrees_with_scipys_root_is_symmetric_and_zero_on_itself():
    a, b = sample(500, 64, 0), sample(400, 64, 1)
    # 1e-8 is sqrtm's error here, not ours: 40-digit arithmetic gives 9.835111178288036
    assert frechet_distance(a, b) == pytest.approx(by_sqrtm(a, b), rel=1e-8)
    assert frechet_distance(a, b) == pytest.approx(9.835111178288036, rel=1e-12)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-12)
    assert 0 <= frechet_distance(a, a) < 1e-10


def test_singular_covariances_follow_the_closed_form():
    # two planes in 3-D that share the first axis: the root of the product has one eigenvalue, 2 * 3
    a, b = gaussian(torch.zeros(3), torch.diag(torch.tensor([4.0, 1, 0]))), gaussian(torch.zeros(3), torch.eye(3) * 9)
    b.covariance[1, 1] = 0
    assert frechet_distance(a, b) == pytest.approx((4 + 1) + (9 + 9) - 2 * 6, rel=1e-14)
    point = gaussian(torch.ones(3), torch.zeros(3, 3))
    assert frechet_distance(point, b) == pytest.approx(3 + 18, rel=1e-14)
    assert frechet_distance(point, point) == 0


def test_fewer_images_than_features_agree_with_scipy_and_stay_zero_on_themselves():
    few, fewer, many = sample(40, 64, 0), sample(20, 64, 1), sample(900, 64, 2)
    for a, b in ((few, many), (many, few), (few, fewer)):
        assert frechet_distance(a, b) == pytest.approx(by_sqrtm(a, b), rel=1e-5)
    assert frechet_distance(few, few) < 1e-10


@pytest.mark.slow
def test_2048_features_take_seconds():
    a, b = sample(3000, 2048, 0), sample(3000, 2048, 1)
    started = time.perf_counter()
    frechet_distance(a, b)
    assert time.perf_counter() - started < 30
