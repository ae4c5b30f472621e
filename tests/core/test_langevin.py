"""Langevin dynamics: its steps, where it comes to rest, and which mode it comes to rest in."""

import pytest
import torch
from clouds import Cloud, affine
from oracles import Gaussian, Mixture

from cmtool.core.discrete_processes import DDPM
from cmtool.core.process import EDM, VE, VP, SubVP
from cmtool.core.sampling.langevin import annealed_langevin, langevin_step
from cmtool.core.sampling.loops import last
from cmtool.core.sampling.predictor_corrector import ALD, Langevin
from cmtool.core.sampling.sde import ReverseSDE, score_function

WEIGHTS = (0.2, 0.8)
MODES = Mixture.line(WEIGHTS, (-1.0, 1.0), (0.1, 0.1))
LEVELS = torch.logspace(1, -1.5, 40, dtype=torch.float64)


def at(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


def test_a_step():
    x, score, z = (torch.tensor([[v]]) for v in (1.0, -3.0, 2.0))
    moved, mean = langevin_step(x, score, torch.tensor(0.08), z)
    assert mean.item() == pytest.approx(1 - 0.24)
    assert moved.item() == pytest.approx(1 - 0.24 + 0.4 * 2)


def test_annealing_finds_the_right_weights_and_widths():
    n = 4000
    x = last(annealed_langevin(MODES, Cloud(n, 1).normal((1,)) * 10, LEVELS, Cloud(n), rate=0.2, steps=20))
    right = x > 0
    assert float(right.double().mean()) == pytest.approx(0.8, abs=4 * (0.16 / n) ** 0.5)
    width = (0.01 + float(LEVELS[-1]) ** 2) ** 0.5
    assert float(x[right].mean()) == pytest.approx(1, abs=4 * width / (0.8 * n) ** 0.5)
    assert float(x[right].std()) == pytest.approx(width, rel=4 / (1.6 * n) ** 0.5 + 0.01)
    assert float(x[~right].std()) == pytest.approx(width, rel=4 / (0.4 * n) ** 0.5 + 0.01)


def test_without_annealing_the_weights_are_those_of_the_start():
    n, low = 2000, LEVELS[-1:]
    x = last(annealed_langevin(MODES, Cloud(n, 1).normal((1,)) * 10, low, Cloud(n), rate=0.1, steps=600))
    assert float((x > 0).double().mean()) == pytest.approx(0.5, abs=0.05)


def test_it_walks_level_by_level():
    walk = list(annealed_langevin(MODES, torch.zeros(3, 1).double(), LEVELS[:4], Cloud(3), steps=2))
    assert len(walk) == 4
    rest = list(annealed_langevin(MODES, walk[0], LEVELS[1:2], Shifted(Cloud(3), 2), steps=2))
    assert torch.equal(rest[0], walk[1])


class Shifted:
    """The same noise, some draws later."""

    def __init__(self, noise, by: int):
        self.noise, self.by = noise, by

    def normal(self, shape, stream: int = 0) -> torch.Tensor:
        return self.noise.normal(shape, stream + self.by)


@pytest.mark.parametrize("process", [EDM(), VE(), VP(), SubVP(), DDPM.linear(100)], ids=lambda p: type(p).__name__)
def test_a_corrector_comes_to_rest_near_the_marginal(process):
    """On a Gaussian of variance v steps of size eta rest at v / (1 - eta / 2v)."""
    data, snr = Gaussian(0.4, 0.3), 0.1
    t, s = process.time(at(1.0)), process.time(at(0.9))
    scale, deviation = float(process.scale(t)), float(process.deviation(t))
    v = scale**2 * (0.09 + 1.0)
    c, d, k = affine(ALD(snr), process, score_function(data, process), t, s)
    eta = 2 * float(process.scale(t) / process.scale(s)) ** 2 * (snr * deviation) ** 2
    assert k**2 == pytest.approx(2 * eta, rel=1e-9)
    assert k**2 / (1 - c**2) == pytest.approx(v / (1 - eta / (2 * v)), rel=1e-9)
    assert d / (1 - c) == pytest.approx(0.4 * scale, rel=1e-9)


def test_steps_are_repeated_with_noise_of_their_own():
    x, sde = torch.ones(2, 1).double(), ReverseSDE(EDM(), score_function(Gaussian(), EDM()), Cloud(2))
    three, _ = ALD(0.2, steps=3)(sde, x, at(1.0), at(0.9))
    sde = ReverseSDE(EDM(), score_function(Gaussian(), EDM()), Cloud(2))
    for _ in range(3):
        x, _ = ALD(0.2)(sde, x, at(1.0), at(0.9))
    assert torch.equal(three, x)


def test_the_size_of_a_step_is_set_by_norms_of_one_image_or_of_all():
    x = torch.tensor([[1.0, 2.0], [6.0, 8.0]]).double()
    z, t = Cloud(2).normal((2,), 1 << 16), at(1.0)
    score = score_function(Gaussian(), EDM())(x, t)
    moved, _ = Langevin(0.3)(ReverseSDE(EDM(), lambda x, t: score, Cloud(2)), x, t, at(0.9))
    for i in range(2):
        eta = 2 * (0.3 * z[i].norm() / score[i].norm()) ** 2
        assert torch.allclose(moved[i], x[i] + eta * score[i] + (2 * eta).sqrt() * z[i])
    pooled, _ = Langevin(0.3, pooled=True)(ReverseSDE(EDM(), lambda x, t: score, Cloud(2)), x, t, at(0.9))
    eta = 2 * (0.3 * (z[0].norm() + z[1].norm()) / (score[0].norm() + score[1].norm())) ** 2
    assert torch.allclose(pooled, x + eta * score + (2 * eta).sqrt() * z)
