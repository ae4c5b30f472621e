"""Preconditioning: recorded coefficients, the exact boundary, TrigFlow as a change of names."""

import math

import pytest
import torch
from oracles import Gaussian, derivative
from torch import nn

from cmtool.core.denoiser import Denoiser, Preconditioning, broadcast_like
from cmtool.core.process import TrigFlow
from cmtool.core.sigma_schedules import karras

LEVELS = karras(40)


class Linear(nn.Module):
    """A network of which everything is known: it sees its input, its level and its labels."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.7))

    def forward(self, x, c_noise, labels=None):
        shift = 0.0 if labels is None else labels.to(x)
        return self.weight * x + broadcast_like(c_noise + shift, x)


@pytest.mark.parametrize(
    ("sigma", "c_skip", "c_out"),
    [(0.5, 0.5020039999678717, 0.35213917703090064), (80.0, 3.90629272263522e-05, 0.49997773490522646), (0.002, 1, 0)],
)
def test_boundary_scalings_are_the_recorded_ones(sigma, c_skip, c_out):
    got = Preconditioning(0.5, 0.002)(torch.tensor(sigma, dtype=torch.float64))
    assert got[0].item() == pytest.approx(c_skip, rel=1e-14)
    assert got[1].item() == pytest.approx(c_out, rel=1e-14)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("sigma_min", [0.002, 0.003, 0.0123])
def test_a_consistency_model_leaves_its_boundary_as_it_is(sigma_min, dtype):
    model = Denoiser(Linear(), Preconditioning(0.5, sigma_min))
    x = torch.linspace(-3, 3, 12, dtype=dtype).reshape(2, 6)
    for sigma in (torch.full((2,), sigma_min, dtype=dtype), karras(18, sigma_min)[-1]):
        assert torch.equal(model(x, sigma), x)


def test_without_a_boundary_the_image_is_not_quite_kept():
    assert Preconditioning()(torch.tensor(0.002, dtype=torch.float64))[0].item() == pytest.approx(0.999984, abs=1e-7)


@pytest.mark.parametrize("sigma_data", [0.5, 1.0])
@pytest.mark.parametrize("sigma_min", [0.0, 0.002])
def test_the_network_sees_unit_variance(sigma_data, sigma_min):
    _, _, c_in, _ = Preconditioning(sigma_data, sigma_min)(LEVELS)
    assert torch.allclose(c_in**2 * (LEVELS**2 + sigma_data**2), torch.ones_like(LEVELS), rtol=1e-14)


def test_the_network_answers_with_unit_variance():
    """Var[(x_0 - c_skip x) / c_out] = 1 for data of deviation sigma_data: what c_skip and c_out were chosen for."""
    c_skip, c_out, _, _ = Preconditioning(0.5)(LEVELS)
    variance = ((1 - c_skip) ** 2 * 0.5**2 + c_skip**2 * LEVELS**2) / c_out**2
    assert torch.allclose(variance, torch.ones_like(variance), rtol=1e-11)


def test_times_are_what_each_family_feeds_its_network():
    sigma = torch.tensor([0.002, 0.5, 80.0], dtype=torch.float64)
    log, openai = (Preconditioning(time=name)(sigma)[3] for name in ("log", "log-1000"))
    assert torch.allclose(log, sigma.log() / 4, rtol=1e-15)
    assert torch.allclose(openai, 1000 * log, rtol=1e-14)
    assert openai[2].item() == pytest.approx(1095.5066586, abs=1e-7)
    assert torch.allclose(Preconditioning.trigflow()(sigma)[3], TrigFlow().time(sigma), rtol=1e-15)


class Exact(nn.Module):
    """``sigma_data F`` is the derivative of TrigFlow's exact path, ``x sqrt(s^2 cos^2 t + sigma_data^2 sin^2 t)``."""

    def __init__(self, std: float, sigma_data: float):
        super().__init__()
        self.std, self.sigma_data = std, sigma_data

    def forward(self, x, t, labels=None):
        def length(t):
            return (self.std**2 * t.cos() ** 2 + self.sigma_data**2 * t.sin() ** 2).sqrt()

        a, slope = derivative(length, t)
        return broadcast_like(slope / a, x) * x  # x is x_t / sigma_data


@pytest.mark.parametrize("sigma_data", [0.5, 0.8])
@pytest.mark.parametrize("std", [0.2, 0.5, 1.3])
def test_trigflow_turns_the_exact_velocity_into_the_exact_denoiser(std, sigma_data):
    model = Denoiser(Exact(std, sigma_data), Preconditioning.trigflow(sigma_data))
    sigma = LEVELS[:-1]
    x = torch.linspace(-2, 2, len(sigma), dtype=torch.float64)[:, None] * (std**2 + sigma[:, None] ** 2).sqrt()
    assert torch.allclose(model(x, sigma), Gaussian(0.0, std)(x, sigma), rtol=1e-10, atol=1e-12)


def test_trigflow_is_its_own_formula():
    """``D = cos(t) x_t - sin(t) sigma_data F(x_t / sigma_data, t)`` with ``x_t = cos(t) x``."""
    model = Denoiser(Linear(), Preconditioning.trigflow(0.5))
    sigma = torch.tensor([0.01, 0.5, 30.0], dtype=torch.float64)
    x, t = torch.tensor([[0.1, -0.4], [0.7, 1.1], [-25.0, 8.0]], dtype=torch.float64), (sigma / 0.5).atan()[:, None]
    model.double()
    x_t = t.cos() * x
    expected = t.cos() * x_t - t.sin() * 0.5 * model.net(x_t / 0.5, t[:, 0])
    assert torch.allclose(model(x, sigma), expected, rtol=1e-13)


def test_the_formula_is_the_one_of_the_class():
    model, pre = Denoiser(Linear(), Preconditioning(0.5, 0.002)).double(), Preconditioning(0.5, 0.002)
    sigma, x = torch.tensor([0.1, 3.0]).double(), torch.tensor([[0.3, -0.2], [2.0, 1.0]]).double()
    c_skip, c_out, c_in, c_noise = (v[:, None] for v in pre(sigma))
    labels = torch.tensor([2, 5])
    assert torch.allclose(model(x, sigma, labels), c_skip * x + c_out * (0.7 * c_in * x + c_noise + labels[:, None]))


def test_one_level_for_all_is_that_level_for_each():
    model, x = Denoiser(Linear(), Preconditioning()), torch.tensor([[0.3, -0.2], [2.0, 1.0]])
    assert torch.equal(model(x, torch.tensor(3.0)), model(x, torch.full((2,), 3.0)))


def test_a_network_of_single_precision_works_inside_double_precision():
    """The arithmetic around the network keeps the precision of x: rounding enters only through c_out F."""
    single, double = Denoiser(Linear(), Preconditioning(0.5, 0.002)), Denoiser(Linear(), Preconditioning(0.5, 0.002))
    x, sigma = torch.tensor([[math.pi, -math.e]], dtype=torch.float64), torch.tensor([0.002001], dtype=torch.float64)
    got, want = single(x, sigma), double.double()(x, sigma)
    assert got.dtype == torch.float64
    assert torch.allclose(got, want, rtol=0, atol=1e-12)
