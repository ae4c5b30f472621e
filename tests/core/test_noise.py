"""Noise is a function of (seed, draw) alone, and it is normal."""

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from cmtool.core.noise import AUGMENT, LABEL, LEVEL, START, STEP, Noise, SlerpNoise

SHAPE = (3, 8, 8)


@pytest.fixture(scope="module")
def many():
    return Noise(range(256)).normal((3, 16, 16)).flatten(1).double()


def in_batches(size: int, stream: int) -> torch.Tensor:
    return torch.cat([Noise(seeds).normal(SHAPE, stream) for seeds in torch.arange(64).split(size)])


@pytest.mark.parametrize("stream", [START, STEP + 1])
def test_noise_is_bit_equal_at_every_batch_size_and_thread_count(stream):
    whole = in_batches(64, stream)
    assert torch.equal(in_batches(1, stream), whole)
    assert torch.equal(in_batches(7, stream), whole)
    torch.set_num_threads(2)
    try:
        assert torch.equal(in_batches(7, stream), whole)
    finally:
        torch.set_num_threads(1)


def test_noise_does_not_depend_on_what_was_drawn_before():
    noise = Noise([3, 5])
    first = noise.normal(SHAPE)
    noise.normal((2,), STEP), noise.uniform()
    assert torch.equal(noise.normal(SHAPE), first)


def test_order_and_repetition_of_seeds_are_free():
    assert torch.equal(Noise([7, 2, 7]).normal(SHAPE), Noise([2, 7]).normal(SHAPE)[[1, 0, 1]])


def test_noise_of_a_seed_is_the_recorded_one():
    """A file's name is its seed: these numbers must never change."""
    assert Noise([0]).normal((3,)).tolist() == [[0.059911035001277924, 0.015559634193778038, -1.1644384860992432]]
    later = Noise([2**40 + 1]).normal((3,), STEP + 2)
    assert later.tolist() == [[-1.0600032806396484, -1.091207504272461, 0.9080767631530762]]
    assert Noise([0]).uniform().item() == 0.8133540609793564


def test_every_seed_draw_and_domain_has_numbers_of_its_own():
    streams = [START, LEVEL, LABEL, AUGMENT, STEP, STEP + 1, STEP + 2]
    seeds = [0, 1, 2, 2**32, 2**63, -1]
    rows = [Noise(seeds, domain).normal((4,), stream) for domain in (0, 1) for stream in streams]
    assert len(torch.cat(rows).unique(dim=0)) == 2 * len(streams) * len(seeds)


def test_normal_is_standard_normal(many):
    values = many.flatten()
    assert values.mean().abs() < 4 / len(values) ** 0.5
    assert (values.var() - 1).abs() < 4 * (2 / len(values)) ** 0.5
    assert kstest(values.numpy(), "norm").pvalue > 0.01


def test_seeds_draws_and_pixels_are_uncorrelated(many):
    n = many.numel()
    assert (many[:-1] * many[1:]).mean().abs() < 4 / n**0.5
    assert (many[:, :-1] * many[:, 1:]).mean().abs() < 4 / n**0.5
    assert (many * Noise(range(256)).normal((3, 16, 16), STEP).flatten(1)).mean().abs() < 4 / n**0.5
    correlation = many.corrcoef().fill_diagonal_(0)
    assert correlation.abs().max() < 6 / many.shape[1] ** 0.5


def test_uniform_is_uniform_inside_the_interval():
    u = Noise(range(4000)).uniform()
    assert u.dtype == torch.float64
    assert 0 < u.min() < 1e-3 and 1 - 1e-3 < u.max() < 1
    assert kstest(u.numpy(), "uniform").pvalue > 0.01
    assert abs(np.corrcoef(u[:-1], u[1:])[0, 1]) < 4 / len(u) ** 0.5


def test_blend_begins_and_ends_at_its_seeds_bit_for_bit():
    blend = SlerpNoise([4, 9], 6)
    for stream in (START, STEP + 1):
        frames = blend.normal(SHAPE, stream)
        assert len(frames) == len(blend) == 6
        assert torch.equal(frames[[0, -1]], Noise([4, 9]).normal(SHAPE, stream))


def test_blend_walks_the_great_circle_at_constant_speed():
    frames = SlerpNoise([4, 9], 6).normal((3, 32, 32)).flatten(1).double()
    units = frames / frames.norm(dim=1, keepdim=True)
    angles = (units[:-1] * units[1:]).sum(1).arccos()
    assert torch.allclose(frames.norm(dim=1), frames.norm(dim=1)[[0, -1]].mean().expand(6), rtol=0.02)
    assert torch.allclose(angles, angles.mean().expand(5), rtol=0.03)  # the ends differ a little in length


def test_blend_of_a_seed_with_itself_is_still():
    assert torch.equal(SlerpNoise([4, 4], 3).normal(SHAPE), Noise([4, 4, 4]).normal(SHAPE))
