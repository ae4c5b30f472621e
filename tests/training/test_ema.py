"""The averaged weights are the weighted sum that the half-life says."""

import pytest
import torch
from torch import nn

from cmtool.training.ema import EMA, constant_decay, counted_decay, ema_decay, power_decay


def number(value: float) -> nn.Module:
    layer = nn.Linear(1, 1, bias=False, dtype=torch.float64)
    nn.init.constant_(layer.weight, value)
    return layer


def value_of(average: EMA) -> float:
    return average.model.weight.item()


@pytest.mark.parametrize("batch", [1, 50, 500])
def test_half_of_the_average_is_the_last_half_life(batch):
    """Weights of 0 until now and 1 for H images: the average is one half, whatever the batch."""
    average, half_life, long_ago = EMA(number(0.0), 1000), 1000, 10**9
    for images in range(batch, half_life + 1, batch):
        average.update(number(1.0), batch, long_ago + images)
    assert value_of(average) == pytest.approx(0.5, rel=1e-12)


def test_an_image_h_images_ago_counts_half_of_one_now():
    """The impulse response: what a step left in the average after H more images is half of what it left at once."""
    left = []
    for after in (0, 40):
        average, images = EMA(number(0.0), 4000), 10**9
        average.update(number(1.0), 100, images)
        for step in range(after):
            average.update(number(0.0), 100, images + 100 * (step + 1))
        left.append(value_of(average))
    assert left[0] == pytest.approx(1 - 0.5 ** (100 / 4000), rel=1e-12)
    assert left[1] / left[0] == pytest.approx(0.5, rel=1e-12)


def test_average_is_the_closed_form_while_its_half_life_grows():
    """``sum_j w_j (1 - b_j) prod_{i > j} b_i`` with ``b_i = 0.5^(batch / min(H, 0.05 n_i))``."""
    batch, half_life = 64, 500
    values = torch.randn(400, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    average = EMA(number(3.0), half_life)
    for step, value in enumerate(values, 1):
        average.update(number(value.item()), batch, step * batch)
    images = batch * torch.arange(1, 401, dtype=torch.float64)
    beta = 0.5 ** (batch / (0.05 * images).clamp(max=half_life))
    survives = torch.cat([beta.flip(0).cumprod(0).flip(0)[1:], torch.ones(1, dtype=torch.float64)])
    expected = (values * (1 - beta) * survives).sum() + 3.0 * beta.prod()
    assert value_of(average) == pytest.approx(expected.item(), rel=1e-12)
    assert (0.05 * images < half_life).sum() == 156, "both the ramp and the constant part are tried"


def test_the_start_is_soon_forgotten():
    """While the half-life is a twentieth of the run so far, k steps leave ``2^(-20 (1 + 1/2 + ... + 1/k))`` of it."""
    average = EMA(number(1.0), 1e12)
    for step in range(1, 4):
        average.update(number(0.0), 64, 64 * step)
    assert value_of(average) == pytest.approx(0.5 ** (20 * (1 + 1 / 2 + 1 / 3)), rel=1e-9)


def test_decay_of_a_step():
    assert ema_decay(500, 10**9, 500) == 0.5
    assert ema_decay(512, 10**9, 500_000) == pytest.approx(0.99929047, abs=5e-9)
    assert ema_decay(4096, 10**9, 50_000_000) == pytest.approx(0.9999432189950708, rel=1e-12)
    assert ema_decay(64, 6400, 10**9) == pytest.approx(0.5**0.2, rel=1e-12)


def test_no_half_life_is_no_average():
    average, model = EMA(number(1.0), 0), number(0.1234567890123)
    average.update(model, 64, 64)
    assert torch.equal(average.model.weight, model.weight)


def test_the_average_is_a_copy_for_evaluation():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout(0.5)).train()
    average = EMA(model, 100)
    assert not average.model.training and model.training
    assert not any(p.requires_grad for p in average.model.parameters())
    with torch.no_grad():
        model[0].weight += 1
        model[1].running_mean += 5
    assert not torch.equal(average.model[0].weight, model[0].weight)
    average.update(model, 1, 10**9)
    assert torch.equal(average.model[1].running_mean, model[1].running_mean), "statistics are copied, not averaged"


def test_a_constant_average_forgets_by_the_step():
    average = EMA(number(1.0), rule=constant_decay(0.9))
    for step in range(5):
        average.update(number(0.0), 64, 64 * (step + 1))
    assert value_of(average) == pytest.approx(0.9**5, rel=1e-12)


def test_a_counted_average_begins_fast_and_ends_at_its_limit():
    """Steps 1, 2, 3 keep 2/11, 3/12 and 4/13 of it, whatever the batch; far on it is the limit."""
    for batch in (1, 50):
        average = EMA(number(1.0), rule=counted_decay(0.999))
        for step in range(1, 4):
            average.update(number(0.0), batch, batch * step)
        assert value_of(average) == pytest.approx(2 / 11 * 3 / 12 * 4 / 13, rel=1e-12)
    assert counted_decay(0.999)(50, 10**9) == 0.999


def test_a_power_average_begins_with_the_first_weights():
    average = EMA(number(7.0), rule=power_decay(0.1))
    average.update(number(2.0), 64, 64)
    assert value_of(average) == 2.0


def test_the_gap_is_relative():
    model = nn.Linear(2, 1, dtype=torch.float64)
    average = EMA(model, 100)
    assert average.gap(model) == 0
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    assert average.gap(model).item() == pytest.approx(0.5, rel=1e-12)
