"""Likelihoods against densities that are known, and the estimate of a trace against the trace."""

import math
import sys

import pytest
import torch
from oracles import AnisotropicGaussian, Gaussian, Mixture

from cmtool.core.denoiser import ode_field
from cmtool.core.likelihood import (
    adaptive,
    axis_probes,
    bits_per_dim,
    dequantize,
    gaussian_probes,
    log_likelihood,
    log_normal,
    rademacher_probes,
    with_divergence,
)
from cmtool.core.noise import Noise
from cmtool.core.process import EDM, VE, VP, FlowMatching, SubVP, TrigFlow
from cmtool.core.sampling.loops import last
from cmtool.core.sampling.sde import native_ode_field
from cmtool.core.sigma_schedules import karras
from cmtool.core.solvers import heun, integrate
from cmtool.errors import MissingAsset

SPANS = {VE(): (1e-3, 1.0), VP(): (1e-3, 1.0), SubVP(): (1e-3, 1.0), EDM(): (0.002, 80.0), TrigFlow(): (0.004, 1.56)}
DATA = Gaussian(0.0, 0.5)


def at(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


def some(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("process", "span"), SPANS.items(), ids=[type(process).__name__ for process in SPANS])
def test_bits_of_a_gaussian_are_the_analytic_ones(process, span):
    x, (t0, t1) = 0.5 * some(3, 2, 4, 4), (at(t) for t in span)
    s, sigma = process.scale(t0), process.sigma(t0)
    prior = process.scale(t1) * (0.25 + process.sigma(t1) ** 2).sqrt()
    field, probes = native_ode_field(DATA, process), rademacher_probes(Noise([1, 2, 3]), (2, 4, 4))
    found, z = log_likelihood(field, s * x, adaptive(*span, 1e-8), probes, prior)
    exact = DATA.log_density(x, sigma) - 32 * s.log()
    assert torch.allclose(bits_per_dim(found, 32), bits_per_dim(exact, 32), atol=1e-6)
    assert torch.allclose(z / process.scale(t1), DATA.flow(x, sigma, process.sigma(t1)), rtol=1e-5)


def test_entropy_in_bits():
    """The mean over the data is the entropy: log2(s sqrt(2 pi e)) and 7 bits of grey levels 1/128 apart."""
    x = 0.5 * some(4000, 2)
    found, _ = log_likelihood(
        ode_field(DATA), x, adaptive(1e-4, 80.0), axis_probes(4000, (2,)), at(math.hypot(80, 0.5))
    )
    bits = bits_per_dim(found, 2, 1 / 128)
    want = math.log2(0.5 * math.sqrt(2 * math.pi * math.e)) + 7
    assert float(bits.mean()) == pytest.approx(want, abs=4 * float(bits.std()) / 4000**0.5)


def test_the_volume_changes_by_the_ratio_of_densities():
    plane = Mixture(
        (0.3, 0.7), ((-1.0, 0.2), (0.5, -0.3)), (((0.04, 0.01), (0.01, 0.09)), ((0.16, -0.05), (-0.05, 0.1)))
    )
    x = plane.sample(5, torch.Generator().manual_seed(4))
    found, z = log_likelihood(ode_field(plane), x, adaptive(0.05, 20.0, 1e-9), axis_probes(5, (2,)), at(1.0))
    change = found - log_normal(z, at(1.0))
    assert torch.allclose(change, plane.log_density(x, 0.05) - plane.log_density(z, 20.0), atol=1e-6)


def test_a_grid_of_levels_serves_as_well():
    x, levels = 0.5 * some(3, 4), karras(400).flip(0)
    probes, prior = axis_probes(3, (4,)), at(math.hypot(80, 0.5))
    found, _ = log_likelihood(
        ode_field(DATA), x, lambda field, y: last(integrate(field, y, levels, heun())), probes, prior
    )
    assert torch.allclose(found, DATA.log_density(x, 0.002), atol=2e-3)


def tangled(a: torch.Tensor):
    return lambda x, t: torch.tanh(x.flatten(1) @ a).view_as(x) * (1 + t)


def traces(x: torch.Tensor, a: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    rows = [torch.func.jacrev(lambda v: tangled(a)(v[None], t)[0])(row).reshape(row.numel(), -1) for row in x]
    return torch.stack([row.trace() for row in rows])


@pytest.mark.parametrize("probes_of", [gaussian_probes, rademacher_probes])
def test_the_mean_of_the_estimate_is_the_trace(probes_of):
    a, x, t, n = some(6, 6), some(3, 2, 3, seed=1), at(0.5), 2000
    single = torch.stack(
        [with_divergence(tangled(a), e[None])(torch.cat([x.flatten(1), x[:, 0, :1]], 1), t)[:, -1]
         for e in probes_of(Noise([1, 2, 3]), (2, 3), n)]
    )  # fmt: skip
    want = traces(x, a, t)
    assert ((single.mean(0) - want).abs() < 4 * single.std(0) / n**0.5).all()
    together = with_divergence(tangled(a), probes_of(Noise([1, 2, 3]), (2, 3), 50))
    assert torch.allclose(together(torch.cat([x.flatten(1), x[:, 0, :1]], 1), t)[:, -1], single[:50].mean(0))


def test_every_axis_gives_the_trace_itself_and_the_slope_is_the_field():
    a, x, t = some(6, 6), some(3, 2, 3, seed=1), at(0.5)
    both = with_divergence(tangled(a), axis_probes(3, (2, 3)))(torch.cat([x.flatten(1), x[:, 0, :1]], 1), t)
    assert torch.allclose(both[:, -1], traces(x, a, t), rtol=1e-6)
    assert torch.equal(both[:, :-1], tangled(a)(x, t).flatten(1))


def test_signs_vary_less_than_normal_numbers_and_not_at_all_on_a_diagonal():
    x, t = some(2, 5), at(0.3)
    y, noise = torch.cat([x, x[:, :1]], 1), Noise([1, 2])
    single = [[with_divergence(ode_field(DATA), e[None])(y, t)[:, -1] for e in make(noise, (5,), 20)]
              for make in (rademacher_probes, gaussian_probes)]  # fmt: skip
    exact = 5 * float(t) / (0.25 + float(t) ** 2)  # div (x - D)/sigma of a Gaussian
    assert torch.allclose(torch.stack(single[0]), at(exact).expand(20, 2), rtol=1e-10)
    assert float(torch.stack(single[1]).std()) > 0.3 * exact


def test_probes_belong_to_seeds():
    for make in (rademacher_probes, gaussian_probes):
        both = make(Noise([4, 9]), (3,), 2)
        assert torch.equal(both[:, 1:], make(Noise([9]), (3,), 2))
        assert not torch.equal(both[0], both[1])
    assert set(rademacher_probes(Noise([4]), (50,)).unique().tolist()) == {-1.0, 1.0}


def test_weights_get_no_gradient_and_single_precision_networks_are_welcome():
    from cmtool.core.denoiser import Denoiser, Preconditioning

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = torch.nn.Linear(4, 4)

        def forward(self, x, c_noise, labels=None):
            return torch.tanh(self.inner(x)) + labels[:, None]

    torch.manual_seed(0)
    model, labels = Denoiser(Net(), Preconditioning()), torch.tensor([0, 1])
    x, probes = some(2, 4), axis_probes(2, (4,))
    found, _ = log_likelihood(ode_field(model, labels), x, adaptive(0.01, 80.0), probes, at(80.0))
    assert found.dtype == torch.float64
    assert not found.requires_grad
    assert all(p.grad is None for p in model.parameters())
    swapped, _ = log_likelihood(ode_field(model, 1 - labels), x, adaptive(0.01, 80.0), probes, at(80.0))
    assert (found - swapped).abs().min() > 1e-3


def test_anisotropic_gaussian_in_flow_matching():
    data = AnisotropicGaussian([0.1, -0.2], [[0.25, 0.18], [0.18, 0.25]])
    process, x = FlowMatching(), some(3, 2)
    t0, t1 = at(0.01), at(0.99)
    found, z = log_likelihood(
        native_ode_field(data, process), x, adaptive(0.01, 0.99, 1e-9), axis_probes(3, (2,)), at(1.0)
    )
    start = data.log_density(x / 0.99, process.sigma(t0)) - 2 * math.log(0.99)
    end = data.log_density(z / 0.01, process.sigma(t1)) - 2 * math.log(0.01)
    assert torch.allclose(found - log_normal(z, at(1.0)), start - end, atol=1e-5)


def test_noise_of_every_grey_level_is_eight_bits():
    """A uniform density over 256 levels costs 8 bits a value, however far apart they are."""
    for width in (1 / 127.5, 1 / 128, 1 / 256):
        assert bits_per_dim(at(-12 * math.log(256 * width)), 12, width).item() == pytest.approx(8, rel=1e-12)


def test_dequantised_images_are_spread_over_their_grey_levels():
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(40, 1, 16, 16)
    x = dequantize(images, Noise(range(40)))
    levels = (x.double() + 1) * 127.5
    assert torch.equal(levels.round().clamp(0, 255).to(torch.uint8), images)
    within = (levels - images).flatten().sort().values + 0.5
    assert float((within - torch.linspace(0, 1, 10240).double()).abs().max()) < 1.6 / 10240**0.5  # Kolmogorov-Smirnov
    assert torch.equal(x[7:8], dequantize(images[:1], Noise([7])))


def test_without_scipy_the_way_out_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.integrate", None)
    with pytest.raises(MissingAsset) as raised:
        log_likelihood(ode_field(DATA), some(2, 3), adaptive(0.002, 80.0), axis_probes(2, (3,)), at(80.0))
    assert raised.value.hint == "pip install scipy"
