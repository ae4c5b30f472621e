"""The discrete chains of DDPM and NCSN, and the diffusions through their rungs."""

import math

import pytest
import torch
from oracles import derivative

from cmtool.core.discrete_processes import DDPM, NCSN
from cmtool.core.process import VE, VP
from cmtool.errors import UsageError

LADDERS = [DDPM.linear(), DDPM.cosine(), DDPM.linear(40), NCSN.geometric(), NCSN.geometric(10, 0.01, 1.0)]
each = pytest.mark.parametrize("ladder", LADDERS, ids=["linear", "cosine", "linear-40", "ncsn", "ncsn-10"])


def rungs(ladder, start=0):
    return torch.arange(start, len(ladder) + 1, dtype=torch.float64)


@each
def test_walking_the_chain_rung_by_rung_gives_the_marginals(ladder):
    scale, variance = 1.0, 0.0
    for i in rungs(ladder, 1):
        a, b = (float(v) for v in ladder.transition(i, i - 1))
        scale, variance = scale * a, a**2 * variance + b**2
        assert float(ladder.scale(i)) == pytest.approx(scale, rel=1e-9)
        assert float(ladder.deviation(i)) == pytest.approx(math.sqrt(variance), rel=1e-9)


def test_the_rungs_of_ddpm():
    linear, i = DDPM.linear(), rungs(DDPM.linear(), 1)
    assert torch.allclose(linear.betas[[0, 1, -1]], torch.tensor([1e-4, 1e-4 + 0.0199 / 999, 0.02]).double())
    a, b = linear.transition(i, i - 1)
    assert torch.allclose(b**2, linear.betas, rtol=1e-9)
    assert torch.allclose(a**2, 1 - linear.betas, rtol=1e-12)
    assert torch.allclose(linear.scale(i) ** 2, (1 - linear.betas).cumprod(0), rtol=1e-10)
    assert float(linear.scale(i[-1]) ** 2) == pytest.approx(4.0358e-5, rel=1e-4)


def test_a_ladder_too_short_for_its_betas_is_refused():
    with pytest.raises(UsageError, match="20 steps") as raised:
        DDPM.linear(20)
    assert raised.value.hint == "take more than 20"
    assert torch.isfinite(DDPM.linear(21).sigma(rungs(DDPM.linear(21)))).all()


def test_the_cosine_keeps_what_it_says_until_it_is_cut_off():
    ladder, i = DDPM.cosine(), rungs(DDPM.cosine())
    kept = torch.cos((i / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2 / math.cos(0.008 / 1.008 * math.pi / 2) ** 2
    assert torch.allclose(ladder.scale(i[:-1]) ** 2, kept[:-1], rtol=1e-9, atol=1e-15)
    assert float(ladder.betas[-1]) == 0.999
    assert (ladder.betas[:-1] < 0.999).all()


def test_the_rungs_of_ncsn():
    ladder, i = NCSN.geometric(10, 0.01, 1.0), rungs(NCSN.geometric(10, 0.01, 1.0))
    assert torch.allclose(ladder.sigma(i[1:]), 10 ** torch.linspace(-2, 0, 10).double(), rtol=1e-6)
    assert float(ladder.sigma(i[0])) == 0
    assert torch.allclose(ladder.transition(i[2:], i[1:-1])[1] ** 2, ladder.sigma(i).square().diff()[1:], rtol=1e-12)


@each
def test_time_is_the_inverse_of_level_between_rungs_too(ladder):
    t = torch.cat([rungs(ladder), rungs(ladder)[:-1] + 0.3])
    if ladder is LADDERS[1]:
        t = t[t < 990]  # where next to nothing is left of the image, float64 is at its end
    assert torch.allclose(ladder.time(ladder.sigma(t)), t, rtol=1e-9, atol=1e-9)


@each
def test_drift_and_diffusion_are_derivatives_between_rungs(ladder):
    t = rungs(ladder)[:-1] + 0.4
    s, slope = derivative(ladder.scale, t)
    sigma, rise = derivative(ladder.sigma, t)
    assert torch.allclose(ladder.drift(t), slope / s, rtol=1e-9, atol=1e-14)
    assert torch.allclose(ladder.diffusion(t), s * (2 * sigma * rise).sqrt(), rtol=1e-9)


@each
def test_the_rate_belongs_to_the_piece_below(ladder):
    """At a rung the coefficients are those of the step down from it, which is where a walk goes."""
    i = rungs(ladder, 1)
    assert torch.equal(ladder.diffusion(i), ladder.diffusion(i - 0.5))
    assert torch.equal(ladder.drift(i), ladder.drift(i - 0.5))


@pytest.mark.parametrize(("ladder", "process"), [(DDPM.linear, VP()), (NCSN.geometric, VE())], ids=["VP", "VE"])
def test_with_more_rungs_a_ladder_becomes_its_equation(ladder, process):
    errors = []
    for n in (500, 1000, 2000):
        t = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
        errors.append((ladder(n).sigma(t * n).log() - process.sigma(t).log()).abs().max())
    assert float(errors[0] / errors[1]) == pytest.approx(2, rel=0.05)
    assert float(errors[1] / errors[2]) == pytest.approx(2, rel=0.05)


def test_single_precision_keeps_its_digits():
    ladder, i = DDPM.linear(), rungs(DDPM.linear(), 1)
    assert torch.allclose(ladder.sigma(i.float()).double(), ladder.sigma(i), rtol=1e-5)
