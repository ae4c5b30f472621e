"""Which levels training visits: against the tables of the papers, scipy and the grid itself."""

import math

import pytest
import torch
from scipy.stats import kstest, lognorm
from scipy.stats import t as student

from cmtool.core.noise import LEVEL, Noise
from cmtool.core.sigma_schedules import karras
from cmtool.objectives.consistency import adjacent_pair, ect_ratio
from cmtool.objectives.consistency_2023 import adjacent_log_normal, doubling_steps, openai_ema_decay, openai_steps
from cmtool.objectives.easy_consistency import ect_stage, round_pair
from cmtool.objectives.multistep_distillation import halving_steps
from cmtool.objectives.noise_levels import log_normal
from cmtool.objectives.tcm import log_student


def tensor(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize(
    ("last", "levels"), [(150, [2, 3, 6, 17, 54, 107, 151]), (200, [2, 3, 8, 23, 72, 143, 201])], ids=["150", "200"]
)
def test_levels_of_consistency_training_grow_as_published(last, levels):
    steps = [0, 1, 1000, 10_000, 100_000, 400_000, 800_000]
    assert [openai_steps(k / 800_000, 2, last) for k in steps] == levels


def test_rate_of_the_target_differs_between_paper_and_code():
    """The paper's N includes the + 1, the code of its authors takes N before it: 0.9 and 0.81 at the start."""
    assert openai_ema_decay(2, 2, 0.9, "paper") == pytest.approx(0.9, rel=1e-15)
    assert openai_ema_decay(2, 2, 0.9, "openai") == pytest.approx(0.81, rel=1e-15)
    assert openai_ema_decay(151, 2, 0.9, "paper") == pytest.approx(0.998605, abs=5e-7)
    assert openai_ema_decay(151, 2, 0.9, "openai") == pytest.approx(0.998596, abs=5e-7)


def test_rate_of_the_target_keeps_its_half_life_in_sweeps_of_the_grid():
    """``mu^N`` is the same at every N: the target forgets over one pass of its levels."""
    sweeps = [openai_ema_decay(n, 2, 0.9) ** n for n in (2, 17, 151)]
    assert sweeps == pytest.approx([0.81] * 3, rel=1e-12)


def test_levels_double_as_published():
    stages = [doubling_steps(k / 400_000, 10, 1280) for k in range(0, 400_001, 50_000)]
    assert stages == [11, 21, 41, 81, 161, 321, 641, 1281, 1281]
    assert doubling_steps(49_999 / 400_000, 10, 1280) == 11
    assert [doubling_steps(p, 10, 1000) for p in (0.13, 0.132, 0.99, 1)] == [11, 21, 1001, 1001]  # log2(100) + 1 stages
    assert doubling_steps(0.5, 10, 29) == doubling_steps(0.5, 10, 20) == 21  # s1 / s0 is rounded down


def test_ratio_of_tuning_is_the_published_table():
    t = tensor(0.01, 0.1, 1, 2, 10, 80)
    first, fourth = ect_ratio(t, 0), ect_ratio(t, 3)
    assert first.tolist() == pytest.approx([0, 0, 0, 0.0464, 4.9982, 40], abs=5e-5)
    assert fourth.tolist() == pytest.approx([0.006887, 0.069999, 0.803029, 1.755797, 9.374773, 75], abs=5e-7)


def test_a_large_q_begins_where_a_small_one_ends():
    t = tensor(0.01, 0.3, 2, 80)
    assert torch.equal(ect_ratio(t, 0, q=256.0), ect_ratio(t, 7, q=2.0))


def test_ratio_of_tuning_first_leaves_zero_near_the_logarithm_of_seven():
    """``1 + 8 sigmoid(-t) = 2`` at t = ln 7."""
    t = tensor(math.log(7) - 1e-9, math.log(7) + 1e-9)
    low, high = ect_ratio(t, 0).tolist()
    assert low == 0 < high < 1e-8


def test_stages_are_equal_parts_and_end_with_the_last():
    assert [ect_stage(p, 8) for p in (0.0, 0.124, 0.125, 0.5, 0.999, 1.0)] == [0, 0, 1, 4, 7, 7]


def test_log_normal_levels_have_the_quantiles_of_scipy():
    u = tensor(1e-12, 0.001, 0.1, 0.5, 0.9, 0.999, 1 - 1e-12)
    for mean, std in ((-1.2, 1.2), (-1.1, 2.0)):
        expected = lognorm(s=std, scale=math.exp(mean)).ppf(u.numpy())
        assert log_normal(u, mean, std).tolist() == pytest.approx(expected.tolist(), rel=1e-9)


def test_log_normal_levels_of_our_noise_follow_the_distribution():
    sigma = log_normal(Noise(range(4000), domain=1).uniform(LEVEL))
    assert kstest(sigma.numpy(), lognorm(s=1.2, scale=math.exp(-1.2)).cdf).pvalue > 0.01
    assert sigma.isfinite().all()


@pytest.mark.parametrize("n", [2, 3, 18])
def test_neighbours_are_chosen_equally_often_and_belong_to_the_grid(n):
    u = (torch.arange(60 * (n - 1), dtype=torch.float64) + 0.5) / (60 * (n - 1))
    t, r = adjacent_pair(u, n, 0.002, 80.0)
    grid = karras(n)
    assert torch.equal(t, grid[:-1].repeat_interleave(60))
    assert torch.equal(r, grid[1:].repeat_interleave(60))


def test_the_ends_of_the_uniform_numbers_are_the_ends_of_the_grid():
    t, r = adjacent_pair(tensor(2.0**-54, 1 - 2.0**-53), 18, 0.002, 80.0)
    assert t.tolist() == pytest.approx([80.0, karras(18)[-2].item()], rel=1e-15)
    assert r[1].item() == 0.002


def test_neighbours_are_drawn_as_often_as_the_logarithm_is_normal():
    """The masses of the sheet for N = 11, each the share of the normal distribution that lies between two levels."""
    u = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    t, r = adjacent_log_normal(u, karras(11, 0.002, 80.0), -1.1, 2.0)
    rising = karras(11).flip(0)
    index = torch.searchsorted(rising, t)
    assert torch.equal(rising[index - 1], r)
    share = (index - 1).bincount(minlength=10) / len(u)
    assert share[[0, 1, 2, 8, 9]].tolist() == pytest.approx(
        [0.062633, 0.181737, 0.245501, 0.008944, 0.003980], abs=6e-6
    )
    assert (t[1:] >= t[:-1]).all(), "the larger u, the higher the level"


@pytest.mark.parametrize(("df", "scale", "low"), [(0.01, 0.2, 1.0), (3.0, 0.7, 0.5), (1.0, 0.2, 2.0)])
def test_levels_of_truncated_training_are_student(df, scale, low):
    u = (torch.arange(999, dtype=torch.float64) + 0.5) / 999
    levels, law = log_student(u, low, 80.0, df, scale), student(df, scale=scale)
    ends = law.cdf([math.log(low), math.log(80.0)])
    shares = (law.cdf(levels.log()) - ends[0]) / (ends[1] - ends[0])
    assert shares == pytest.approx(u.numpy(), abs=2e-6)
    ends = log_student(tensor(0.0, 1.0), low, 80.0, df, scale)
    assert ends.tolist() == pytest.approx([low, 80.0], rel=1e-12)
    assert ((ends >= low) & (ends <= 80)).all()


def test_steps_halve_and_the_last_stages_are_longer():
    assert [halving_steps((k + 0.5) / 9, 64) for k in range(9)] == [64, 32, 16, 8, 4, 2, 2, 1, 1]
    assert [halving_steps((k + 0.5) / 3, 16, 4) for k in range(3)] == [16, 8, 4]
    assert [halving_steps(p, 8, 8) for p in (0.0, 0.5, 1.0)] == [8, 8, 8]
    assert halving_steps(1.0, 64) == 1


def test_a_pair_is_rounded_to_a_grid_and_kept_apart():
    grid = torch.tensor([8.0, 4.0, 2.0, 1.0], dtype=torch.float64)
    t, r = torch.tensor([3.5, 2.2, 9.0, 1.1]).double(), torch.tensor([1.6, 1.9, 7.9, 0.0]).double()
    above, below = round_pair(t, r, grid)
    assert above.tolist() == [4, 4, 8, 2] and below.tolist() == [2, 2, 4, 1]
