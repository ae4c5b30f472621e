"""Noise on the way leaves the distribution as it is, in the amounts that the papers give."""

import math
from itertools import pairwise

import pytest
import torch
from oracles import AnisotropicGaussian, Gaussian, golden_line
from scipy.stats import kstest

from cmtool.core.noise import STEP, Noise
from cmtool.core.sampling.loops import CountNFE, last, probability_flow
from cmtool.core.sigma_schedules import append_zero, karras, log_uniform
from cmtool.core.solvers.runge_kutta import ancestral, ddim, euler, heun, midpoint
from cmtool.core.solvers.solver import Churn

TILTED = AnisotropicGaussian([0.3, -0.2, 0.5], [[0.3, 0.1, 0.0], [0.1, 0.2, -0.05], [0.0, -0.05, 0.4]])


@pytest.mark.parametrize(
    "solver",
    [heun(churn=40), heun(churn=10, churn_min=0.05, churn_max=50), midpoint(churn=30), ddim(eta=0.5), ancestral()],
)
@pytest.mark.parametrize("data", [TILTED, golden_line()], ids=["gaussian", "mixture"])
def test_the_distribution_is_kept(data, solver):
    n = 1000
    x = data.noisy(n, 80.0, torch.Generator().manual_seed(0))
    levels = append_zero(karras(40) if solver.nfe_per_step == 2 else log_uniform(150))
    x = last(probability_flow(data, x, levels, solver, noise=Noise(range(n))))
    if data is TILTED:
        error = ((data.covariance**2 + torch.outer(*[data.covariance.diagonal()] * 2)) / n).sqrt()
        assert ((x.mean(0) - data.mean).abs() < 4 * (data.covariance.diagonal() / n).sqrt() + 0.01).all()
        assert ((x.T.cov() - data.covariance).abs() < 4 * error + 0.01).all()
    else:
        cdf = data.cdf(x.sort(0).values, 1e-6)[:, 0].numpy()
        assert kstest(cdf, "uniform").statistic < 1.63 / math.sqrt(n) + 0.01  # the 1% point, and the walk's own error


def test_noise_of_another_size_is_caught_by_that_test():
    n, data = 1000, Gaussian(torch.zeros(1), 0.5)
    x = data.noisy(n, 80.0, torch.Generator().manual_seed(0))
    solver = heun(churn=40, churn_noise=1.2)
    x = last(probability_flow(data, x, append_zero(karras(40)), solver, noise=Noise(range(n))))
    assert float(x.var()) > 0.25 * (1 + 4 * math.sqrt(2 / n))


def test_churn_raises_the_level_within_its_bounds():
    stir = Churn(churn=4.0, low=0.1, high=30.0)
    t = torch.tensor([0.0999, 0.1, 30.0, 30.001], dtype=torch.float64)
    assert [float(stir.raised(v, 10)) for v in t] == pytest.approx([0.0999, 0.14, 42.0, 30.001])
    assert float(stir.raised(t[1], 5)) == pytest.approx(0.1 * math.sqrt(2))  # 0.8 is cut to sqrt(2) - 1


@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_eta_is_that_of_ddim(eta):
    """Song et al. 2021, eq. 16, in the variables of a variance-preserving process."""
    t, s = torch.tensor(3.0).double(), torch.tensor(1.7).double()
    a_t, a_s = 1 / (1 + t**2), 1 / (1 + s**2)
    deviation = eta * ((1 - a_s) / (1 - a_t) * (1 - a_t / a_s)).sqrt()
    down, up = Churn(eta=eta).split(t, s)
    assert float(up) == pytest.approx(float(deviation / a_s.sqrt()), rel=1e-12)
    assert float(down) == pytest.approx(float((1 - a_s - deviation**2).sqrt() / a_s.sqrt()), rel=1e-12)


def test_all_of_the_noise_is_the_posterior_of_ddpm():
    """``p(x_s | x_t, x_0) = N(x_0 + s^2/t^2 (x_t - x_0), s^2 (t^2 - s^2)/t^2)`` (Ho et al. 2020, eq. 6-7)."""
    t, s, x = torch.tensor(3.0).double(), torch.tensor(1.7).double(), torch.tensor([[2.0], [-1.0]]).double()
    noise, data = Noise([5, 6]), golden_line()
    (walked,) = probability_flow(data, x, torch.stack([t, s]), ancestral(), noise=noise)
    mean = data(x, t) + (s / t) ** 2 * (x - data(x, t))
    deviation = s * (t**2 - s**2).sqrt() / t
    assert torch.allclose(walked, mean + deviation * Noise([5, 6]).normal((1,), STEP + 1).double(), rtol=1e-12)


def test_a_churned_step_is_made_of_the_named_noise():
    levels, x, data = append_zero(karras(4)), torch.tensor([[60.0], [-20.0]]).double(), golden_line()
    walk = list(probability_flow(data, x, levels, heun(churn=1.0, churn_noise=1.1), noise=Noise([5, 6])))
    for k, (t, s) in enumerate(pairwise(levels)):
        z = Noise([5, 6]).normal((1,), STEP + 2 * k).double()
        high = t * 1.25
        x = x + 1.1 * (high**2 - t**2).sqrt() * z
        slope = (x - data(x, high)) / high
        end = x + (s - high) * slope
        x = x + (s - high) * (slope + (end - data(end, s)) / s) / 2 if s > 0 else data(x, high)
        assert torch.allclose(walk[k], x, rtol=1e-12)


def test_stirring_costs_no_evaluations():
    for solver in (heun(churn=40), ddim(eta=0.5), euler(churn=3)):
        model = CountNFE(golden_line())
        list(probability_flow(model, torch.ones(2, 1).double(), append_zero(karras(18)), solver, noise=Noise([0, 1])))
        assert model.calls == 17 * solver.nfe_per_step + 1


@pytest.mark.parametrize("solver", [heun(churn=40), ancestral()])
def test_without_noise_and_upwards_the_walk_is_the_ode(solver):
    plain = heun() if solver.nfe_per_step == 2 else euler()
    x, levels = torch.tensor([[0.3]]).double(), karras(12).flip(0)
    walked = last(probability_flow(golden_line(), x, levels, solver))
    assert torch.equal(walked, last(probability_flow(golden_line(), x, levels, plain)))


def test_an_image_does_not_depend_on_its_batch():
    def images(seeds):
        noise = Noise(seeds)
        x = 80 * noise.normal((1,)).double()
        return last(probability_flow(golden_line(), x, append_zero(karras(8)), heun(churn=4), noise=noise))

    assert torch.equal(torch.cat([images([seed]) for seed in range(5)]), images(range(5)))
