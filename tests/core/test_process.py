"""Processes are changes of coordinates: their three functions and two coefficients describe one and the same motion."""

import math

import pytest
import torch
from oracles import Gaussian, derivative

from cmtool.core.noise import Noise
from cmtool.core.process import EDM, VE, VP, FlowMatching, SubVP, TrigFlow
from cmtool.core.rescaled_processes import RescaledProcess, SquareRoot

# each with times at which to look
PROCESSES = [
    (EDM(), (0.002, 80.0)),
    (VE(), (0.01, 1.0)),
    (VP(), (0.001, 1.0)),
    (SubVP(), (0.001, 1.0)),
    (FlowMatching(), (0.001, 0.99)),
    (TrigFlow(), (0.004, 1.5645)),
    (TrigFlow(1.0), (0.004, 1.5645)),
    (VP(0.2, 15.0), (0.001, 1.0)),
    (VP(3.0, 3.0), (0.001, 1.0)),
    (SubVP(0.0, 12.0), (0.001, 1.0)),
    (SquareRoot(), (0.01, 100.0)),
    (RescaledProcess(SquareRoot(), unit=True), (0.01, 100.0)),
    (RescaledProcess(VP(), unit=False), (0.01, 1.0)),
    (RescaledProcess(EDM(), unit=True), (0.01, 20.0)),
]
each = pytest.mark.parametrize(("process", "span"), PROCESSES, ids=lambda v: str(v) if not isinstance(v, tuple) else "")


def at(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def times(span: tuple[float, float], n: int = 41) -> torch.Tensor:
    return torch.linspace(*span, n, dtype=torch.float64)


@each
def test_time_is_the_inverse_of_level(process, span):
    t = times(span)
    sigma = process.sigma(t)
    assert (sigma.diff() > 0).all()
    assert torch.allclose(process.time(sigma), t, rtol=1e-10, atol=1e-13)
    assert torch.allclose(process.sigma(process.time(sigma)), sigma, rtol=1e-10)


@each
def test_drift_and_diffusion_are_derivatives_of_scale_and_level(process, span):
    t = times(span)
    _, slope = derivative(process.scale, t)
    sigma, rise = derivative(process.sigma, t)
    s = process.scale(t)
    assert torch.allclose(process.drift(t), slope / s, rtol=1e-9, atol=1e-14)
    assert torch.allclose(process.diffusion(t), s * (2 * sigma * rise).sqrt(), rtol=1e-9)


@each
def test_simulating_the_equation_forward_gives_the_marginal(process, span):
    """Euler-Maruyama on dx = f x dt + g dw, from a Gaussian at the first time to a middle one: mean and deviation."""
    data, n, steps = Gaussian(0.4, 0.3), 20_000, 400
    first, last = span[0], min(span[0] + 0.5 * (span[1] - span[0]), 2.0)
    t, dt = times((first, last), steps + 1)[:-1], (last - first) / steps
    noise = Noise([0])
    z = [noise.normal((n, 1), stream)[0].double() for stream in range(steps + 2)]
    start = at(first)
    x = process.scale(start) * (data.mean + data.std * z[0] + process.sigma(start) * z[1])
    for k in range(steps):
        f, g = process.drift(t[k]), process.diffusion(t[k])
        x = x + f * x * dt + g * dt**0.5 * z[k + 2]
    s, sigma = process.scale(at(last)), process.sigma(at(last))
    deviation = float(s * (data.std**2 + sigma**2).sqrt())
    assert float(x.mean()) == pytest.approx(float(s) * 0.4, abs=4 * deviation / n**0.5 + 0.01 * deviation)
    assert float(x.std()) == pytest.approx(deviation, rel=0.025)


def test_recorded_values():
    vp, sub, ve = VP(), SubVP(), VE()
    assert vp.scale(at(1.0)).item() == pytest.approx(0.0065715865, abs=5e-11)
    assert (vp.scale(at(1.0)) * vp.sigma(at(1.0))).item() == pytest.approx(0.9999784069, abs=5e-11)
    assert vp.scale(at(0.5)).item() == pytest.approx(0.2811828808, abs=5e-11)
    assert (vp.scale(at(0.5)) * vp.sigma(at(0.5))).item() == pytest.approx(0.9596542021, abs=5e-11)
    assert (sub.scale(at(0.5)) * sub.sigma(at(0.5))).item() == pytest.approx(0.9209361875, abs=5e-11)
    assert ve.sigma(at(0.5)).item() == pytest.approx(0.7071067812, abs=5e-11)
    assert TrigFlow().time(at(80.0)).item() == pytest.approx(1.5645464, abs=5e-8)
    assert TrigFlow().sigma(at(1.1)).item() == pytest.approx(0.98238, abs=5e-6)
    assert FlowMatching().sigma(at(0.25)).item() == pytest.approx(1 / 3, rel=1e-15)


def test_noise_is_what_is_left_of_unit_variance():
    """``(s sigma)^2`` is ``1 - s^2`` for VP, ``(1 - s^2)^2`` for sub-VP; the level of VP is EDM's formula for it."""
    t = times((0.001, 1.0))
    s2 = VP().scale(t) ** 2
    assert torch.allclose(s2 * VP().sigma(t) ** 2, 1 - s2, rtol=1e-10)
    assert torch.allclose(s2 * SubVP().sigma(t) ** 2, (1 - s2) ** 2, rtol=1e-10)
    assert torch.allclose(VP().sigma(t), ((0.5 * 19.9 * t**2 + 0.1 * t).exp() - 1).sqrt(), rtol=1e-10)
    assert torch.allclose(VP().scale(t), 1 / (1 + VP().sigma(t) ** 2).sqrt(), rtol=1e-14)


def test_trigflow_keeps_the_variance_of_the_data():
    t = times((0.0, 1.5))
    process = TrigFlow(0.5)
    total = process.scale(t) ** 2 * (0.5**2 + process.sigma(t) ** 2)
    assert torch.allclose(total, at(0.25).expand(41), rtol=1e-13)


@each
def test_every_process_follows_the_same_flow(process, span):
    """The probability flow in native time, ``dx/dt = f x - g^2 score / 2``, is the flow in sigma seen through s(t)."""
    data, t = Gaussian(0.4, 0.3), times(span, 9)
    x = at(0.7).expand(9, 1)

    def path(t):
        ratio = (data.std**2 + process.sigma(t) ** 2).sqrt()[:, None]
        return process.scale(t)[:, None] * (data.mean + ratio * x)

    x_t, slope = derivative(path, t)
    s, f, g = (v(t)[:, None] for v in (process.scale, process.drift, process.diffusion))
    score = data.score(x_t / s, process.sigma(t)) / s
    assert torch.allclose(slope[:, None], f * x_t - g**2 * score / 2, rtol=1e-8, atol=1e-10)


def test_vp_contracts_a_gaussian_by_the_recorded_factor():
    process, data = VP(), Gaussian(0.0, 0.5)
    end = data.flow(at(1.0)[:, None] / process.scale(at(1.0)), process.sigma(at(1.0)), process.sigma(at(1e-3)))
    assert (process.scale(at(1e-3)) * end).item() == pytest.approx(0.5000905500, abs=5e-11)
    assert math.isclose(process.drift(at(0.0)).item(), -0.05)


@each
def test_steps_compose(process, span):
    """From r to s and on to t is the step from r to t: ``a a'``, ``b^2 + a^2 b'^2``; from clean data, the marginal."""
    r, s, t = at(*torch.linspace(*span, 3).tolist())
    (a, b), (a0, b0), (whole, spread) = process.transition(t, s), process.transition(s, r), process.transition(t, r)
    assert (a * a0).item() == pytest.approx(whole.item(), rel=1e-12)
    assert (b**2 + a**2 * b0**2).item() == pytest.approx((spread**2).item(), rel=1e-12)
    a, b = process.transition(t, process.time(at(0.0)))
    assert torch.allclose(torch.cat([a, b]), torch.cat([process.scale(at(float(t))), process.deviation(at(float(t)))]))


@each
def test_the_prior_covers_data_and_noise(process, span):
    t = at(span[1])
    total = process.scale(t) * (1 + process.sigma(t) ** 2).sqrt()  # data of unit variance
    assert torch.allclose(process.prior(t), total, rtol=0.01)
    if isinstance(process, VP) and not isinstance(process, SubVP):
        assert torch.allclose(process.prior(t), total, rtol=1e-14)


@pytest.mark.parametrize(("low", "high", "start"), [(0.002, 80.0, 1e-3), (0.01, 50.0, 1e-4), (0.02, 157.0, 0.01)])
def test_vp_spans_the_levels_it_is_given(low, high, start):
    process = VP.spanning(low, high, start)
    assert torch.allclose(process.sigma(at(start, 1.0)), at(low, high), rtol=1e-9)
    assert torch.allclose(process.time(at(low, high)), at(start, 1.0), rtol=1e-9)
    assert process.time(at(0.0)).item() == 0


def test_the_span_of_vp_has_its_betas():
    low, high = VP().sigma(at(1e-3, 1.0)).tolist()
    found = VP.spanning(low, high, 1e-3)
    assert (found.beta_min, found.beta_max) == pytest.approx((0.1, 20.0), rel=1e-9)
