"""Layers that keep the mean square at 1: each against its formula, and by quadrature over normal numbers."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from cmtool.backbones.magnitude import Conv, Fourier, blend, join, resize, silu, unit


def square(x: Tensor) -> float:
    return x.double().square().mean().item()


def test_unit_is_the_root_mean_square_of_each_row():
    torch.manual_seed(0)
    x = 7 * torch.randn(3, 5, 2, 2, dtype=torch.float64)
    for dim, axes in ((1, (1,)), ((1, 2, 3), (1, 2, 3))):
        rms = np.sqrt(np.mean(x.numpy() ** 2, axis=axes, keepdims=True))
        np.testing.assert_allclose(unit(x, dim).numpy(), x.numpy() / (rms + 1e-4), rtol=1e-12)
    assert not unit(torch.zeros(2, 3), 1).any()


def test_silu_of_normal_numbers_has_mean_square_1():
    nodes, mass = np.polynomial.hermite_e.hermegauss(120)
    moment = (silu(torch.from_numpy(nodes)).numpy() ** 2 * mass).sum() / math.sqrt(2 * math.pi)
    assert moment == pytest.approx(1, abs=2e-3)  # the published factor has three digits


@pytest.mark.parametrize("t", [0.0, 0.3, 0.5, 1.0])
def test_a_blend_of_independent_numbers_keeps_their_mean_square(t):
    torch.manual_seed(0)
    a, b = torch.randn(2, 200_000, dtype=torch.float64)
    assert square(blend(a, b, t)) == pytest.approx(1, abs=0.01)
    share = torch.dot(blend(a, b, t), b) / torch.dot(blend(a, b, t), a)
    if 0 < t < 1:
        assert share.item() == pytest.approx(t / (1 - t), rel=0.03)


@pytest.mark.parametrize(("n", "m"), [(4, 4), (48, 16), (1, 9)])
def test_what_is_joined_counts_alike_and_keeps_its_mean_square(n, m):
    a, b = torch.ones(2, n, 3, 3), -torch.ones(2, m, 3, 3)
    both = join(a, b)
    assert both.shape == (2, n + m, 3, 3)
    assert square(both) == pytest.approx(1)
    assert both[:, :n].square().sum().item() == pytest.approx(both[:, n:].square().sum().item())
    assert (both[:, :n] > 0).all() and (both[:, n:] < 0).all()


def test_down_is_the_mean_of_four_and_up_is_a_copy():
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert resize(x, 0.5).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert torch.equal(resize(resize(x, 2.0), 0.5), x)
    assert resize(x, 1.0) is x


def test_waves_are_those_of_the_formula_and_have_mean_square_1():
    torch.manual_seed(0)
    waves, c = Fourier(4096), torch.tensor([-1.5, 0.2], dtype=torch.float64)
    f, p = waves.freqs.double(), waves.phases.double()
    expected = [[math.sqrt(2) * math.cos(v * w + q) for w, q in zip(f, p, strict=True)] for v in c.tolist()]
    torch.testing.assert_close(waves(c), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12)
    assert square(waves(c)) == pytest.approx(1, abs=0.05)
    assert f.std().item() == pytest.approx(2 * math.pi, rel=0.05)
    assert p.min() >= 0 and 6.2 < p.max() < 2 * math.pi


@pytest.mark.parametrize("kernel", [0, 1, 3])
def test_filters_have_length_1_whatever_is_stored(kernel):
    torch.manual_seed(0)
    layer = Conv(5, 7, kernel)
    shape = (2, 5, 6, 6) if kernel else (2, 5)
    x = torch.randn(shape)
    w = layer.weight.detach()
    flat = w / (w.flatten(1).norm(dim=1) + 1e-4 * math.sqrt(w[0].numel())).view(-1, *[1] * (w.ndim - 1))
    wanted = torch.nn.functional.conv2d(x, flat, padding="same") if kernel else x @ flat.T
    torch.testing.assert_close(layer(x), wanted, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(layer(x, 3.0), 3 * wanted, rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        layer.weight *= torch.linspace(1, 50, 7).view(-1, *[1] * (w.ndim - 1))
    torch.testing.assert_close(layer(x), wanted, rtol=1e-3, atol=1e-3)


def test_projecting_brings_the_stored_filters_to_mean_square_1_and_changes_no_output():
    torch.manual_seed(0)
    layer, x = Conv(5, 7, 3), torch.randn(2, 5, 6, 6)
    with torch.no_grad():
        layer.weight *= 9
    before, weight = layer(x), layer.weight
    layer.project()
    assert layer.weight is weight and weight.requires_grad
    assert torch.allclose(weight.square().mean((1, 2, 3)), torch.ones(7), atol=3e-4)
    torch.testing.assert_close(layer(x), before, rtol=3e-4, atol=3e-4)
    once = weight.detach().clone()
    layer.project()
    assert (weight - once).abs().max() < 3e-4 * once.abs().max()


def test_the_gradient_is_orthogonal_to_a_projected_filter():
    """So a step turns a filter and does not, to first order, make it longer."""
    torch.manual_seed(0)
    layer = Conv(5, 7, 3)
    layer.project()
    layer(torch.randn(2, 5, 6, 6)).square().sum().backward()
    along = (layer.weight * layer.weight.grad).flatten(1).sum(1)
    size = layer.weight.flatten(1).norm(dim=1) * layer.weight.grad.flatten(1).norm(dim=1)
    assert (along.abs() < 1e-3 * size).all()
