"""The oracles against their recorded values, against each other and against finite differences."""

import math
from itertools import pairwise

import pytest
import torch
from oracles import AnisotropicGaussian, Gaussian, Mixture, golden_line
from scipy.stats import kstest

EPS = 0.002


def line(*values):
    return torch.tensor(values, dtype=torch.float64)[:, None]


def plane() -> Mixture:
    covariances = [[[0.09, 0.05], [0.05, 0.08]], [[0.02, 0.0], [0.0, 0.25]], [[0.16, -0.06], [-0.06, 0.05]]]
    return Mixture([0.5, 0.3, 0.2], [[1.0, 0.5], [-1.2, 0.8], [0.1, -1.5]], covariances)


@pytest.mark.parametrize(
    ("x", "sigma", "end"),
    [
        (80 * -1.3, 80, -1.0922790279),
        (-16, 80, 0.1217017726),
        (8, 80, 0.3374703603),
        (72, 80, 0.7534117054),
        (160, 80, 1.2378067240),
        (0.3, 1, 0.380923956977),
        (-0.4, 0.5, -0.296770083397),
    ],
)
def test_mixture_ends_at_the_recorded_point(x, sigma, end):
    assert golden_line().consistency(line(x), sigma, EPS).item() == pytest.approx(end, abs=6e-11)


@pytest.mark.parametrize(("x", "sigma", "mean"), [(0.3, 1, 0.231070639903), (-0.4, 0.5, -0.303038277837)])
def test_mixture_denoises_to_the_recorded_mean(x, sigma, mean):
    assert golden_line().denoiser(line(x), sigma).item() == pytest.approx(mean, abs=6e-13)


def test_gaussian_contracts_by_the_recorded_factor():
    end = Gaussian(0.25, 0.5).consistency(line(8.25), 80, EPS)
    assert (end.item() - 0.25) / 8 == pytest.approx(6.2499279321e-3, rel=1e-10)


def test_gaussian_under_vp_contracts_by_the_recorded_factor():
    def vp(t):  # alpha and sigma / alpha of the linear-beta process
        alpha = math.exp(-0.25 * t**2 * 19.9 - 0.5 * t * 0.1)
        return alpha, math.sqrt(1 - alpha**2) / alpha

    (alpha_1, level_1), (alpha_e, level_e) = vp(1.0), vp(1e-3)
    assert alpha_1 == pytest.approx(0.0065715865, abs=5e-11)
    factor = alpha_e / alpha_1 * Gaussian(0.0, 0.5).flow(line(1.0), level_1, level_e).item()
    assert factor == pytest.approx(0.5000905500, abs=5e-11)


def test_point_mass_ends_on_the_line_to_its_centre():
    data = Gaussian(0.7, 0.0)
    x = line(-3.0, 0.0, 5.0)
    assert torch.equal(data.denoiser(x, 3.0), torch.full_like(x, 0.7))
    assert torch.allclose(data.consistency(x, 3.0, EPS), 0.7 + (x - 0.7) * EPS / 3.0, rtol=1e-14, atol=0)


@pytest.mark.parametrize(
    ("solver", "n", "product"),
    [
        ("euler", 2, 6.4059997656e-5),
        ("euler", 18, 5.2879775614e-3),
        ("euler", 40, 5.8107276512e-3),
        ("euler", 151, 6.1326355912e-3),
        ("euler", 1281, 6.2360674789e-3),
        ("heun", 18, 6.5954134874e-3),
        ("heun", 40, 6.3110617836e-3),
        ("heun", 151, 6.2538956164e-3),
    ],
)
def test_solver_products_on_a_gaussian(solver, n, product):
    """A Runge-Kutta walk down the Karras grid multiplies a Gaussian by a known product, step by step."""
    data, i = Gaussian(0.0, 0.5), torch.arange(n, dtype=torch.float64)
    grid = (80 ** (1 / 7) + i / (n - 1) * (EPS ** (1 / 7) - 80 ** (1 / 7))) ** 7
    x = line(1.0)
    for t, s in pairwise(grid):
        slope = -t * data.score(x, t)
        end = x + (s - t) * slope
        x = end if solver == "euler" else x + (s - t) * (slope - s * data.score(end, s)) / 2
    assert x.item() == pytest.approx(product, rel=1e-10)


@pytest.mark.parametrize("sigma", [0.002, 0.3, 2.0, 80.0])
@pytest.mark.parametrize("data", [Gaussian(torch.tensor([0.3, -0.2]), 0.4), plane()], ids=["gaussian", "mixture"])
def test_score_is_the_gradient_of_the_log_density_and_tweedie_holds(data, sigma):
    x = data.noisy(20, sigma, torch.Generator().manual_seed(0)).requires_grad_()
    (gradient,) = torch.autograd.grad(data.log_density(x, sigma).sum(), x)
    score = data.score(x, sigma)
    assert torch.allclose(score, gradient, rtol=1e-9, atol=1e-12)
    assert torch.allclose(data.denoiser(x, sigma), x + sigma**2 * score, rtol=1e-10, atol=1e-12)


def test_anisotropic_gaussian_is_the_mixture_of_one():
    covariance = [[0.3, 0.1], [0.1, 0.2]]
    single, mixture = AnisotropicGaussian([0.1, -0.4], covariance), Mixture([1.0], [[0.1, -0.4]], [covariance])
    x = single.noisy(5, 3.0, torch.Generator().manual_seed(1))
    for name in ("denoiser", "score", "log_density"):
        assert torch.allclose(getattr(single, name)(x, 3.0), getattr(mixture, name)(x, 3.0), rtol=1e-13)
    assert torch.allclose(single.flow(x, 3.0, 0.0), mixture.flow(x, 3.0, 0.0), rtol=1e-10, atol=1e-11)


def test_matching_the_distribution_function_agrees_with_integrating_the_ode():
    x, t, s = line(-9.0, -0.5, 0.1, 2.0, 12.0), torch.tensor([3.0, 0.5, 1.0, 2.0, 5.0]), EPS
    data = golden_line()
    assert torch.allclose(data.match(x, t, s), data.integrate(x, t, s), rtol=1e-9, atol=1e-10)


def test_flow_goes_there_and_back_and_through_a_middle_level():
    data, x = plane(), torch.tensor([[1.0, -0.5], [-2.0, 1.5]], dtype=torch.float64)
    end = data.flow(x, 2.0, 0.1)
    assert torch.allclose(data.flow(end, 0.1, 2.0), x, rtol=1e-9)
    assert torch.allclose(data.flow(data.flow(x, 2.0, 0.7), 0.7, 0.1), end, rtol=1e-9)


def test_a_level_for_every_point_is_the_level_alone():
    data, sigma = plane(), torch.tensor([0.1, 0.5, 2.0, 30.0], dtype=torch.float64)
    x = data.sample(4, torch.Generator().manual_seed(4))
    together = data.denoiser(x, sigma)
    apart = torch.cat([data.denoiser(x[i : i + 1], float(sigma[i])) for i in range(4)])
    assert torch.allclose(together, apart, rtol=1e-14)


def test_the_samples_follow_the_distribution_function():
    data = golden_line()
    x = data.noisy(20_000, 0.6, torch.Generator().manual_seed(2))
    assert kstest(x[:, 0].numpy(), lambda v: data.cdf(torch.from_numpy(v)[:, None], 0.6)[:, 0].numpy()).pvalue > 0.01


def test_mixture_moments_are_those_of_its_samples():
    data = plane()
    x = data.sample(200_000, torch.Generator().manual_seed(3))
    assert torch.allclose(x.mean(0), data.mean, atol=0.01)
    assert torch.allclose(x.T.cov(), data.covariance, atol=0.015)
