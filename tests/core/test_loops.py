"""Walks with exact models end in exact distributions."""

import pytest
import torch
from oracles import AnisotropicGaussian, Gaussian, Mixture, golden_line
from scipy.stats import kstest

from cmtool.core.denoiser import ode_field
from cmtool.core.noise import STEP, Noise
from cmtool.core.sampling.loops import CountNFE, clip_denoised, initial_noise, last, multistep, probability_flow
from cmtool.core.sigma_schedules import append_zero, karras
from cmtool.core.solvers import euler, heun

EPS = 0.002
TILTED = AnisotropicGaussian([0.3, -0.2, 0.5], [[0.3, 0.1, 0.0], [0.1, 0.2, -0.05], [0.0, -0.05, 0.4]])
PLANE = Mixture([0.6, 0.4], [[1.0, 0.5], [-1.2, 0.8]], [[[0.09, 0.05], [0.05, 0.08]], [[0.02, 0.0], [0.0, 0.25]]])


def noisy(data, n: int, sigma: float = 80.0) -> torch.Tensor:
    return data.noisy(n, sigma, torch.Generator().manual_seed(0))


def assert_moments(x: torch.Tensor, mean: torch.Tensor, covariance: torch.Tensor, slack: float = 0.0) -> None:
    """Within four standard errors of a Gaussian sample, and ``slack`` for the walk's own error."""
    n, variance = len(x), covariance.diagonal()
    assert ((x.mean(0) - mean).abs() < 4 * (variance / n).sqrt() + slack).all()
    error = ((covariance**2 + torch.outer(variance, variance)) / n).sqrt()
    assert ((x.T.cov() - covariance).abs() < 4 * error + slack).all()


@pytest.mark.parametrize("levels", [[80.0], [80.0, 0.8], [80.0, 20.0, 3.0, 0.5, 0.05]], ids=len)
def test_multistep_with_the_exact_model_keeps_the_distribution(levels):
    data, n = golden_line(), 4000
    grid = torch.tensor(levels, dtype=torch.float64)
    x = last(multistep(data.student(EPS), noisy(data, n), grid, Noise(range(n)), sigma_min=EPS))
    assert kstest(x[:, 0].numpy(), lambda v: data.cdf(torch.from_numpy(v)[:, None], EPS)[:, 0].numpy()).pvalue > 0.01


def test_multistep_that_adds_too_much_noise_is_caught_by_that_test():
    """Re-noising to sigma from an output that already carries sigma_min is visible where sigma_min is not small."""
    data, n, low = golden_line(), 4000, 0.3
    grid = torch.tensor([80.0, 0.4, 0.35, 0.32], dtype=torch.float64)
    for sigma_min, keeps in ((low, True), (0.0, False)):
        x = last(multistep(data.student(low), noisy(data, n), grid, Noise(range(n)), sigma_min=sigma_min))
        test = kstest(x[:, 0].numpy(), lambda v: data.cdf(torch.from_numpy(v)[:, None], low)[:, 0].numpy())
        assert (test.pvalue > 0.01) == keeps


@pytest.mark.parametrize(("data", "n"), [(TILTED, 8000), (PLANE, 1500)], ids=["gaussian", "mixture"])
def test_multistep_with_the_exact_model_keeps_mean_and_covariance(data, n):
    grid = torch.tensor([80.0, 2.0, 0.3], dtype=torch.float64)
    x = last(multistep(data.student(EPS), noisy(data, n), grid, Noise(range(n)), sigma_min=EPS))
    assert_moments(x, data.mean, data.covariance + EPS**2 * torch.eye(len(data.mean), dtype=torch.float64))


@pytest.mark.parametrize(("data", "n"), [(TILTED, 8000), (PLANE, 8000)], ids=["gaussian", "mixture"])
def test_probability_flow_of_the_exact_denoiser_reaches_mean_and_covariance(data, n):
    x = last(probability_flow(data, noisy(data, n), append_zero(karras(80)), heun()))
    assert_moments(x, data.mean, data.covariance, slack=0.003)


def test_probability_flow_reaches_the_exact_end_of_each_trajectory():
    x = noisy(PLANE, 6, 80.0)
    reached = last(probability_flow(PLANE, x, karras(400), heun()))
    assert torch.allclose(reached, PLANE.consistency(x, 80.0, EPS), rtol=0, atol=2e-3)


def test_encoding_and_decoding_return_the_image():
    x = PLANE.noisy(20, EPS, torch.Generator().manual_seed(1))
    levels = karras(400)
    z = last(probability_flow(PLANE, x, levels.flip(0), heun()))
    assert torch.allclose(z.std(), torch.tensor(80.0).double(), rtol=0.4)
    assert torch.allclose(last(probability_flow(PLANE, z, levels, heun())), x, rtol=0, atol=2e-3)


def test_the_step_to_zero_is_the_denoiser():
    data, levels = golden_line(), append_zero(karras(18))
    walk = list(probability_flow(data, noisy(data, 5), levels, heun()))
    assert len(walk) == 18
    assert torch.equal(walk[-1], data(walk[-2], EPS))


def test_eighteen_steps_of_heun_are_thirty_five_evaluations():
    model = CountNFE(golden_line())
    list(probability_flow(model, noisy(golden_line(), 2), append_zero(karras(18)), heun()))
    assert model.calls == 35
    model = CountNFE(golden_line())
    list(probability_flow(model, noisy(golden_line(), 2), append_zero(karras(18)), euler()))
    assert model.calls == 18


def test_a_jump_is_made_of_the_named_noise():
    data, noise, levels = Gaussian(torch.zeros(3), 0.5), Noise([4, 9]), torch.tensor([80.0, 3.0, 0.5]).double()
    model, x = data.student(EPS), initial_noise(noise, (3,), levels[0])
    assert torch.equal(x, 80 * Noise([4, 9]).normal((3,)))
    expected = model(x, 80.0)
    walk = list(multistep(model, x, levels, noise, sigma_min=EPS))
    assert torch.equal(walk[0], expected)
    for k in (1, 2):
        z = Noise([4, 9]).normal((3,), STEP + k).double()
        expected = model(expected + (levels[k] ** 2 - EPS**2).sqrt() * z, levels[k])
        assert torch.allclose(walk[k], expected, rtol=1e-14)


def test_an_image_does_not_depend_on_its_batch():
    data, levels = golden_line(), torch.tensor([80.0, 0.8]).double()

    def images(seeds):
        noise = Noise(seeds)
        return last(multistep(data.student(EPS), initial_noise(noise, (1,), levels[0]), levels, noise, sigma_min=EPS))

    assert torch.equal(torch.cat([images([seed]) for seed in range(7)]), images(range(7)))


def test_what_is_imposed_enters_the_next_jump():
    noise, levels = Noise([0, 1]), torch.tensor([80.0, 0.5]).double()
    model = Gaussian(torch.zeros(4), 0.5).student(EPS)
    half = torch.tensor([True, True, False, False])
    walk = list(multistep(model, torch.ones(2, 4), levels, noise, impose=lambda x: torch.where(half, x, 7.0)))
    assert all((x[:, 2:] == 7).all() for x in walk)
    z = Noise([0, 1]).normal((4,), STEP + 1).double()
    assert torch.allclose(walk[1][:, :2], model(walk[0] + 0.5 * z, 0.5)[:, :2], rtol=1e-14)


def test_labels_and_one_level_a_row_reach_the_model():
    seen = []

    def model(x, sigma, labels):
        seen.append((sigma.tolist(), labels.tolist()))
        return x

    labels = torch.tensor([3, 1])
    list(multistep(model, torch.ones(2, 1), torch.tensor([5.0, 2.0]), Noise([0, 1]), labels))
    list(probability_flow(model, torch.ones(2, 1), torch.tensor([5.0, 2.0]), euler(), labels))
    assert seen == [([5.0, 5.0], [3, 1]), ([2.0, 2.0], [3, 1]), ([5.0, 5.0], [3, 1])]


def test_the_flow_is_minus_sigma_times_the_score():
    x, sigma = noisy(PLANE, 6, 2.0), torch.tensor([0.01, 0.1, 0.5, 2.0, 10.0, 80.0]).double()
    assert torch.allclose(ode_field(PLANE)(x, sigma), -sigma[:, None] * PLANE.score(x, sigma), rtol=1e-7, atol=1e-12)


def test_clipping_is_of_the_image():
    assert clip_denoised(lambda x, sigma, labels: 3 * x)(torch.tensor([-1.0, 0.2, 1.0]), 1.0).tolist() == pytest.approx(
        [-1.0, 0.6, 1.0]
    )


def test_last_keeps_no_gradient():
    weight = torch.ones(1, requires_grad=True)
    x = last(multistep(lambda x, sigma, labels: weight * x, torch.ones(1, 1), torch.tensor([1.0]), Noise([0])))
    assert not x.requires_grad
