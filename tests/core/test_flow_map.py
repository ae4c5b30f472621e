"""Jumps of an exact flow map against the flow itself, and gamma-sampling against what it must equal."""

import pytest
import torch
from oracles import AnisotropicGaussian, Gaussian, golden_line

from cmtool.core.denoiser import TARGET_DIM, Denoiser, Preconditioning, encode_target
from cmtool.core.flow_map import GammaSampler, flow_map_step
from cmtool.core.noise import Noise
from cmtool.core.sampling.loops import last, multistep
from cmtool.testing import small_model

ROUND = Gaussian(torch.tensor([0.3, -0.2]), 0.4)
TILTED = AnisotropicGaussian([0.3, -0.2], [[0.3, 0.1], [0.1, 0.2]])
LEVELS = torch.tensor([80.0, 3.0, 0.4], dtype=torch.float64)


def levels(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pairs t > s from 80 down to 0, the last s being 0."""
    t = torch.logspace(1.9, -1, n, dtype=torch.float64)
    return t, torch.cat([t[1:] * 0.9, t.new_zeros(1)])


@pytest.mark.parametrize("data", [ROUND, TILTED, golden_line()], ids=["round", "tilted", "line"])
def test_the_exact_map_jumps_along_the_flow(data):
    t, s = levels(12)
    x = data.sample(12, torch.Generator().manual_seed(0)) * (1 + t[:, None])
    torch.testing.assert_close(flow_map_step(data.flow_map, x, t, s), data.flow(x, t, s), rtol=1e-12, atol=1e-12)


def test_the_limit_of_near_jumps_is_the_denoiser():
    x, t = torch.randn(6, 2, dtype=torch.float64), torch.full((6,), 0.7, dtype=torch.float64)
    near = ROUND.flow_map(x, t, None, t * (1 - 1e-6))
    torch.testing.assert_close(near, ROUND.denoiser(x, t), rtol=1e-5, atol=1e-5)


def test_a_jump_to_where_one_is_changes_no_bit_whatever_the_network():
    model, x = small_model((2,), target_dim=TARGET_DIM), torch.randn(5, 2)
    t = torch.tensor([80.0, 3.0, 0.5, 0.1, 0.002])
    assert torch.equal(flow_map_step(model, x, t, t), x)


def test_a_jump_to_0_is_the_network_that_is_told_nothing():
    model, x = small_model((2,), target_dim=TARGET_DIM), torch.randn(5, 2)
    t = torch.tensor([80.0, 3.0, 0.5, 0.1, 0.002])
    assert not encode_target(t, torch.zeros(5)).any()
    torch.testing.assert_close(flow_map_step(model, x, t, torch.zeros(5)), model(x, t), rtol=0, atol=1e-6)


def test_a_network_is_told_apart_all_that_matters():
    t = torch.tensor([80.0, 80.0, 80.0, 0.1, 0.1, 2.0], dtype=torch.float64)
    s = torch.tensor([0.1, 0.5, 40.0, 0.05, 0.09, 2.0], dtype=torch.float64)
    assert torch.pdist(encode_target(t, s)).min() > 0.1
    assert encode_target(t, s).shape == (6, TARGET_DIM)


def test_no_network_needs_a_hint_that_its_factory_did_not_promise():
    model = Denoiser(torch.nn.Identity(), Preconditioning(jumps=True))
    assert model.preconditioning.jumps and not Preconditioning().jumps


def test_gamma_1_is_multistep_sampling():
    model, noise = small_model((2,), target_dim=TARGET_DIM), Noise(range(8))
    walk = GammaSampler(LEVELS, 1.0)
    x = walk.begin(noise, (2,))
    usual = last(multistep(model, x, LEVELS, noise))
    torch.testing.assert_close(last(walk(model, x, noise, None)), usual, rtol=1e-5, atol=1e-5)


def test_gamma_0_follows_the_ode_without_noise():
    noise, walk = Noise(range(50)), GammaSampler(LEVELS, 0.0)
    x = walk.begin(noise, (2,)).double()
    torch.testing.assert_close(
        last(walk(TILTED.flow_map, x, noise, None)), TILTED.flow(x, 80.0, 0.0), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("gamma", [0.3, 0.8])
def test_every_gamma_keeps_the_distribution(gamma):
    noise, walk = Noise(range(20_000)), GammaSampler(LEVELS, gamma)
    assert walk.nfe == 3
    x = last(walk(ROUND.flow_map, walk.begin(noise, (2,)).double(), noise, None))
    torch.testing.assert_close(x.mean(0), ROUND.mean, rtol=0, atol=0.01)
    torch.testing.assert_close(x.std(0), torch.full((2,), 0.4, dtype=torch.float64), rtol=0.02, atol=0)
