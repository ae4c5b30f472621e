import pytest
import torch
from sklearn.metrics.pairwise import polynomial_kernel

from cmtool.evaluation.kid import kernel_distance, squared_mmd


@pytest.fixture(scope="module")
def sets():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, 10, generator=generator)
    return x, torch.randn(50, 10, generator=generator) * 1.5 + 0.3


def test_it_is_the_u_statistic_of_the_cubic_kernel(sets):
    x, y = (s.double().numpy() for s in sets)
    k = [polynomial_kernel(u, v, degree=3, gamma=1 / 10, coef0=1) for u, v in ((x, x), (y, y), (x, y))]
    pairs = [
        sum(m[i, j] for i in range(len(m)) for j in range(len(m)) if i != j) / (len(m) * (len(m) - 1)) for m in k[:2]
    ]
    assert squared_mmd(*sets) == pytest.approx(pairs[0] + pairs[1] - 2 * k[2].mean(), rel=1e-10)


def test_in_one_dimension_it_estimates_the_difference_of_moments():
    # (uv + 1)^3 has the features 1, sqrt(3) u, sqrt(3) u^2, u^3, so MMD^2 = 3 dm1^2 + 3 dm2^2 + dm3^2
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(4000, 1, generator=generator, dtype=torch.float64)
    y = torch.rand(4000, 1, generator=generator, dtype=torch.float64)
    expected = 3 * (1 / 2) ** 2 + 3 * (1 - 1 / 3) ** 2 + (1 / 4) ** 2
    assert squared_mmd(x, y) == pytest.approx(expected, rel=0.1)


def test_whole_sets_as_subsets_give_the_whole_and_seeds_decide_the_rest(sets):
    x, y = sets[0][:50], sets[1]
    assert kernel_distance(x, y, subsets=2) == pytest.approx(squared_mmd(x, y), rel=1e-10)
    draws = [kernel_distance(x, y, subsets=5, size=20, seed=seed) for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]


def test_small_subsets_are_as_right_as_large_ones_on_average():
    generator = torch.Generator().manual_seed(4)
    x, y = torch.randn(2, 20000, 8, generator=generator)
    small, large = (kernel_distance(x, y + 0.5, subsets=n, size=size) for n, size in ((2000, 5), (20, 1000)))
    # the biased estimate, with the diagonals, would be about 4 at five rows instead of 1.14
    assert small == pytest.approx(large, rel=0.2)
