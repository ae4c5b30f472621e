"""The noise of published samplers, against torch's generators asked by hand; the goldens hold the recorded numbers."""

import pytest
import torch

from cmtool.core.noise import STEP
from cmtool.core.published_noise import OrderedNoise, PerSampleNoise, SharedNoise, ode_draw, step_draw
from cmtool.core.sampling.loops import initial_noise, multistep
from cmtool.testing import small_model

MODEL = small_model((3,), sigma_min=0.002)


def by_hand(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_each_sample_has_the_generator_of_its_seed():
    noise = PerSampleNoise([5, 0, 2**32 + 5], steps=torch.float64)
    first, then, whole = noise.normal((2, 3)), noise.normal((4,), STEP), noise.integers(10, (6,))
    hand = by_hand(5)
    assert torch.equal(first[0], torch.randn(2, 3, generator=hand))
    assert torch.equal(then[0], torch.randn(4, generator=hand, dtype=torch.float64))
    assert torch.equal(whole[0], torch.randint(10, (6,), generator=hand))
    assert torch.equal(first[0], first[2]), "they keep 32 bits of a seed"
    assert not torch.equal(first[0], first[1])
    assert len(noise) == 3


def test_openai_numbers_the_generators_of_a_run():
    noise = PerSampleNoise.openai([0, 6], total=7, seed=3)
    assert torch.equal(noise.normal((2,)), torch.stack([torch.randn(2, generator=by_hand(s)) for s in (21, 27)]))


def test_a_shared_generator_fills_all_samples_at_every_draw():
    noise, hand = SharedNoise([4, 1], total=6, seed=3), by_hand(3)
    assert torch.equal(noise.normal((2, 2)), torch.randn(6, 2, 2, generator=hand)[[4, 1]])
    assert torch.equal(noise.normal((3,), STEP), torch.randn(6, 3, generator=hand)[[4, 1]])
    assert torch.equal(noise.integers(9), torch.randint(9, (6,), generator=hand)[[4, 1]])
    assert len(noise) == 2


@pytest.mark.parametrize("make", [PerSampleNoise.openai, SharedNoise])
def test_samples_do_not_depend_on_their_batch(make):
    """With either, a walk of two samples is the walk of four, cut."""

    def walk(samples: list[int]) -> torch.Tensor:
        noise, levels = make(samples, total=8), torch.tensor([80.0, 2.0, 0.5], dtype=torch.float64)
        *_, x = multistep(MODEL, initial_noise(noise, (3,), levels[0]), levels, noise, sigma_min=0.002)
        return x

    assert torch.allclose(walk([0, 1, 2, 3])[2:], walk([2, 3]), rtol=0, atol=1e-6)
    assert not torch.allclose(walk([2]), walk([3]), atol=1e-2)


def test_a_draw_has_its_place_in_the_order_of_the_program():
    """An ODE program draws once a step; a step that adds nothing is not asked for, and still has had its draw."""
    noise, hand = OrderedNoise(PerSampleNoise([3], torch.float64), ode_draw, dtype=torch.float64), by_hand(3)
    start = torch.randn(2, generator=hand)
    skipped, wanted = (torch.randn(2, generator=hand, dtype=torch.float64) for _ in range(2))
    assert torch.equal(noise.normal((2,)), start[None].double())
    assert torch.equal(noise.normal((2,), STEP + 2), wanted[None])  # of the second step, before it
    assert not torch.equal(skipped, wanted)
    with pytest.raises(ValueError, match="draw 1 has passed: 3 were made"):
        noise.normal((2,), STEP)


def test_classes_are_drawn_after_the_start():
    noise, hand = OrderedNoise(PerSampleNoise([3]), step_draw, classes=10), by_hand(3)
    torch.randn(2, generator=hand), torch.randint(10, (), generator=hand)
    noise.normal((2,))
    assert torch.equal(noise.normal((2,), STEP + 1), torch.randn(2, generator=hand)[None])


def test_a_batch_begins_where_the_one_before_ended():
    noise, hand = OrderedNoise(SharedNoise([0, 1], total=4, seed=7), step_draw), by_hand(7)
    draws = [torch.randn(4, 3, generator=hand)[:2] for _ in range(5)]
    noise.first = 3
    assert torch.equal(noise.normal((3,)), draws[3])
    assert torch.equal(noise.normal((3,), STEP + 1), draws[4])
