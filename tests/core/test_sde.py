"""Reverse-time equations: coefficients, one step of each update, and where whole walks end."""

import math
from itertools import pairwise

import pytest
import torch
from clouds import Cloud, affine
from oracles import Gaussian, Mixture

from cmtool.core.denoiser import broadcast_like, ode_field
from cmtool.core.discrete_processes import DDPM, NCSN
from cmtool.core.likelihood import adaptive
from cmtool.core.noise import STEP, Noise
from cmtool.core.process import EDM, VE, VP, FlowMatching, SubVP, TrigFlow
from cmtool.core.sampling.loops import last
from cmtool.core.sampling.predictor_corrector import ALD, Langevin, solve_reverse_sde
from cmtool.core.sampling.sde import (
    Ancestral,
    EulerMaruyama,
    ReverseDiffusion,
    ReverseSDE,
    denoiser_function,
    native_initial_noise,
    native_ode_field,
    reverse_drift,
    score_function,
)
from cmtool.core.solvers import euler

PLANE = Mixture((0.3, 0.7), ((-1.0, 0.2), (0.5, -0.3)), (((0.04, 0.01), (0.01, 0.09)), ((0.16, -0.05), (-0.05, 0.1))))
SPANS = {
    VE(): (1.0, 1e-5),
    VP(): (1.0, 1e-3),
    SubVP(): (1.0, 1e-3),
    EDM(): (80.0, 0.002),
    FlowMatching(): (0.98, 0.01),
    TrigFlow(): (1.56, 0.01),
}
each = pytest.mark.parametrize(("process", "span"), SPANS.items(), ids=[type(process).__name__ for process in SPANS])


def at(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def down(span: tuple[float, float], n: int) -> torch.Tensor:
    return torch.linspace(*span, n + 1, dtype=torch.float64)


@each
def test_the_score_is_the_gradient_of_the_native_density(process, span):
    t = down(span, 4)
    x = PLANE.sample(5, torch.Generator().manual_seed(1)).requires_grad_()
    s = process.scale(t)
    log_density = PLANE.log_density(x / broadcast_like(s, x), process.sigma(t))
    (gradient,) = torch.autograd.grad(log_density.sum(), x)
    assert torch.allclose(score_function(PLANE, process)(x.detach(), t), gradient, rtol=1e-6, atol=1e-8)


@each
def test_a_score_is_a_denoiser(process, span):
    sigma = process.sigma(down(span, 4))
    x = PLANE.sample(5, torch.Generator().manual_seed(1)) * broadcast_like(1 + sigma, torch.ones(5, 2))
    model = denoiser_function(score_function(PLANE, process), process)
    assert torch.allclose(model(x, sigma, None), PLANE(x, sigma), rtol=1e-8, atol=1e-9)


@each
def test_native_time_and_noise_level_lead_to_the_same_place(process, span):
    first, final = (process.sigma(at(t)) for t in span)
    x = PLANE.noisy(6, float(first), torch.Generator().manual_seed(2))
    by_level = adaptive(float(first), float(final), 1e-9)(ode_field(PLANE), x)
    s0, s1 = (process.scale(at(t)) for t in span)
    by_time = adaptive(*span, 1e-9)(native_ode_field(PLANE, process), s0 * x) / s1
    assert torch.allclose(by_time, by_level, atol=2e-7)
    assert torch.allclose(by_level, PLANE.flow(x, float(first), float(final)), atol=2e-7)


@each
def test_the_whole_family_keeps_the_marginals(process, span):
    """``dp/dt = -div(drift p) + lambda^2 g^2/2 laplace p`` is one and the same for every lambda: a line of Gaussian."""
    data, t = Gaussian(0.4, 0.3), at(0.5 * (span[0] + span[1]))
    s, sigma = process.scale(t), process.sigma(t)
    mean, variance = 0.4 * s, s**2 * (0.09 + sigma**2)
    x = mean + variance.sqrt() * at(-1.0, 0.0, 2.0)[:, None]
    score, g2 = -(x - mean) / variance, process.diffusion(t) ** 2
    assert torch.allclose(score_function(data, process)(x, t[0]), score, rtol=1e-7)
    slopes = []
    for noise in (0.0, 0.5, 1.0):  # in reverse time the diffusion enters with the other sign
        drift = reverse_drift(process, score, x, t, noise)
        inner = process.drift(t) + (1 + noise**2) / 2 * g2 / variance
        slopes.append(inner + drift * score + noise**2 * g2 / 2 * (score**2 - 1 / variance))
    assert torch.allclose(slopes[1], slopes[0], rtol=1e-8)
    assert torch.allclose(slopes[2], slopes[0], rtol=1e-8)


UPDATES = [EulerMaruyama(), EulerMaruyama(0.5), ReverseDiffusion(), ReverseDiffusion(0.0), Ancestral(), Ancestral(True)]


def end_of(update, process, times, data: Gaussian) -> tuple[float, float]:
    """Mean and variance at the end of a walk that starts with those of the marginal, without any chance."""
    s, sigma = process.scale(times[0]), process.sigma(times[0])
    mean, variance = float(s * data.mean), float(s**2 * (data.std**2 + sigma**2))
    for t, below in pairwise(times):
        c, d, k = affine(update, process, score_function(data, process), t, below)
        mean, variance = c * mean + d, c**2 * variance + k**2
    return mean, variance


@pytest.mark.parametrize("process", [VE(), VP(), SubVP()], ids=repr)
@pytest.mark.parametrize("update", UPDATES, ids=repr)
def test_every_update_has_weak_order_one(update, process):
    """On a Gaussian a walk is a product of numbers: its variance converges with the step, to the data's."""
    data, span = Gaussian(0.4, 0.3), (0.9, 0.4)
    s, sigma = process.scale(at(span[1])), process.sigma(at(span[1]))
    want = float(s**2 * (0.09 + sigma**2))
    errors = [abs(end_of(update, process, down(span, n), data)[1] - want) for n in (100, 200, 400)]
    assert errors[2] < 0.05 * want
    assert [math.log2(a / b) for a, b in pairwise(errors)] == pytest.approx([1, 1], abs=0.1)
    assert end_of(update, process, down(span, 400), data)[0] == pytest.approx(float(0.4 * s), rel=0.03, abs=1e-3)


def test_ancestral_sampling_is_exact_where_its_noise_is_that_of_the_data():
    """Data of unit variance need the wide noise, a single point the narrow one; then five steps are enough."""
    times = torch.cat([down((1.0, 0.2), 4), torch.zeros(1)])
    mean, variance = end_of(Ancestral(wide=True), VP(), times[:-1], Gaussian(0.0, 1.0))
    assert (mean, variance) == pytest.approx((0, 1), abs=1e-12)
    for process in (VP(), EDM(), SubVP()):
        assert end_of(Ancestral(), process, times, Gaussian(0.7, 0.0)) == pytest.approx((0.7, 0), abs=1e-12)
        before = 0.7 * float(process.scale(times[-2])), float(process.deviation(times[-2])) ** 2
        assert end_of(Ancestral(), process, times[:-1], Gaussian(0.7, 0.0)) == pytest.approx(before, rel=1e-9)


@pytest.mark.parametrize("process", [VP(), EDM(), DDPM.linear(50), NCSN.geometric(50)], ids=lambda p: type(p).__name__)
def test_the_last_ancestral_step_is_the_denoiser(process):
    t, x = process.time(at(0.6))[0], torch.tensor([[0.3, -0.8]], dtype=torch.float64)
    s = process.scale(t)
    sde = ReverseSDE(process, score_function(PLANE, process), Cloud(1))
    moved, mean = Ancestral()(sde, s * x, t, process.time(at(0.0))[0])
    assert torch.allclose(mean, PLANE(x, at(0.6)), rtol=1e-10)
    assert torch.equal(moved, mean)


def test_without_noise_the_stochastic_steps_are_those_of_the_flow():
    process, x = VP(), PLANE.sample(4, torch.Generator().manual_seed(3))
    sde = ReverseSDE(process, score_function(PLANE, process), Cloud(4))
    t, s = at(0.5)[0], at(0.48)[0]
    moved, mean = EulerMaruyama(0.0)(sde, x, t, s)
    assert torch.equal(moved, mean)
    assert torch.allclose(moved, euler()(native_ode_field(PLANE, process), x, t, s), rtol=1e-14)
    assert torch.allclose(ReverseDiffusion(0.0)(sde, x, t, s)[0], moved, atol=0.02 * 0.02 * 50)


def by_rungs(ladder) -> torch.Tensor:
    return torch.arange(len(ladder), -1, -1, dtype=torch.float64)


LONG = 200
WALKS = {
    "VE, Euler-Maruyama": (VE(), down(SPANS[VE()], LONG), EulerMaruyama(), None),
    "VP, Euler-Maruyama": (VP(), down(SPANS[VP()], LONG), EulerMaruyama(), None),
    "VP, half the noise": (VP(), down(SPANS[VP()], LONG), EulerMaruyama(0.5), None),
    "sub-VP, Euler-Maruyama": (SubVP(), down(SPANS[SubVP()], LONG), EulerMaruyama(), None),
    "VE, reverse diffusion": (VE(), down(SPANS[VE()], LONG), ReverseDiffusion(), None),
    "VP, reverse diffusion": (VP(), down(SPANS[VP()], LONG), ReverseDiffusion(), None),
    "sub-VP, reverse diffusion": (SubVP(), down(SPANS[SubVP()], LONG), ReverseDiffusion(), None),
    "DDPM, wide": (DDPM.linear(LONG), by_rungs(DDPM.linear(LONG)), Ancestral(True), None),
    "DDPM, narrow": (DDPM.cosine(LONG), by_rungs(DDPM.cosine(LONG)), Ancestral(), None),
    "SMLD": (NCSN.geometric(LONG), by_rungs(NCSN.geometric(LONG)), Ancestral(), None),
    "trig, ancestral": (TrigFlow(), down((1.56, 0.0), LONG), Ancestral(), None),
    "VE, corrected": (VE(), down(SPANS[VE()], LONG // 2), ReverseDiffusion(), Langevin(0.1, pooled=True)),
    "sub-VP, corrected": (SubVP(), down(SPANS[SubVP()], LONG // 2), EulerMaruyama(), ALD(0.1)),
}


@pytest.mark.parametrize("name", WALKS)
def test_every_sampler_reaches_mean_and_covariance_of_the_data(name):
    process, times, predictor, corrector = WALKS[name]
    n = 4000
    x = native_initial_noise(Cloud(n), (2,), process, times[0])  # type: ignore[arg-type]
    x = last(solve_reverse_sde(ReverseSDE.of(PLANE, process, Cloud(n)), x, times, predictor, corrector))  # type: ignore[arg-type]
    x = x / process.scale(times[-1])
    spread = torch.diagonal(PLANE.covariance).sqrt()
    assert ((x.mean(0) - PLANE.mean).abs() < 4 * spread / n**0.5 + 0.005).all()
    # the fourth moments say how far a sample covariance strays; one percent is for the steps
    centred = x - x.mean(0)
    products = centred[:, :, None] * centred[:, None, :]
    error = (products.mean(0) - PLANE.covariance).abs()
    assert (error < 4 * products.std(0) / n**0.5 + 0.015 * torch.outer(spread, spread)).all()


def test_norms_of_single_images_serve_where_there_are_many_dimensions():
    """A score that is small by chance makes a step too long, which happens in the plane and not in 256 dimensions."""
    data, process, times, cloud = Gaussian(0.4, 0.3), VE(), down((1.0, 1e-5), 100), Cloud(16)
    x = native_initial_noise(cloud, (256,), process, times[0])  # type: ignore[arg-type]
    walk = solve_reverse_sde(ReverseSDE.of(data, process, cloud), x, times, ReverseDiffusion(), Langevin(0.16))  # type: ignore[arg-type]
    x = last(walk)
    assert float(x.mean()) == pytest.approx(0.4, abs=4 * 0.3 / 4096**0.5)
    assert float(x.std()) == pytest.approx(0.3, rel=4 / 8192**0.5 + 0.02)


def test_draws_are_streams_of_their_own():
    sde, x = ReverseSDE(EDM(), score_function(PLANE, EDM()), Noise([5, 6])), torch.zeros(2, 3)
    first, second = sde.draw(x), sde.draw(x)
    assert torch.equal(first, Noise([5, 6]).normal((3,), STEP))
    assert torch.equal(second, Noise([5, 6]).normal((3,), STEP + 1))
