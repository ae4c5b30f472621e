"""The noise of published samplers, against torch's generators asked by hand; the goldens hold the recorded numbers."""

import pytest
import torch

from cmtool.core.noise import STEP, PerSampleNoise, SharedNoise
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
