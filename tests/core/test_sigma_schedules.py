"""The levels that walks visit, against recorded ones."""

import pytest
import torch

from cmtool.core.process import VE, VP
from cmtool.core.sigma_schedules import (
    append_zero,
    evenly_spaced_steps,
    karras,
    karras_between,
    linear,
    log_uniform,
    multistep_schedule,
    uniform_in_time,
)


@pytest.mark.parametrize(
    ("n", "i", "sigma"),
    [
        (18, 11, 0.585348),
        (40, 22, 1.382368),
        (40, 17, 4.365562),
        (40, 18, 3.519699),
        (201, 106, 1.912844),
        (151, 67, 3.991219),
        (151, 62, 5.248503),
        (18, 1, 57.58599),
        (18, 16, 0.007528),
    ],
)
def test_karras_grid_has_the_recorded_levels(n, i, sigma):
    assert karras(n)[i].item() == pytest.approx(sigma, rel=1e-6 if sigma > 0.01 else 1e-4)


@pytest.mark.parametrize("grid", [karras, linear, log_uniform, multistep_schedule])
@pytest.mark.parametrize("n", [2, 3, 18, 151])
def test_grids_descend_from_the_highest_level(grid, n):
    levels = grid(n, 0.01, 50.0)
    assert levels.dtype == torch.float64
    assert len(levels) == n
    assert levels[0].item() == pytest.approx(50.0, rel=1e-14)
    assert (levels.diff() < 0).all()
    assert levels[-1] >= 0.01 * (1 - 1e-14)


@pytest.mark.parametrize("grid", [karras, multistep_schedule])
def test_one_level_alone_is_the_highest(grid):
    assert grid(1).tolist() == [80.0]


def test_karras_ends_are_exact():
    assert karras(40)[[0, -1]].tolist() == [80.0, 0.002]
    assert karras(5, 0.013, 47.3)[[0, -1]].tolist() == [47.3, 0.013]


def test_karras_is_even_in_the_root_and_log_uniform_in_the_logarithm():
    step = (karras(9) ** (1 / 7)).diff()
    assert torch.allclose(step, step.new_tensor((0.002 ** (1 / 7) - 80 ** (1 / 7)) / 8).expand(8), rtol=1e-12)
    ratio = log_uniform(9)[1:] / log_uniform(9)[:-1]
    assert torch.allclose(ratio, ratio.new_tensor((0.002 / 80) ** (1 / 8)).expand(8), rtol=1e-12)


def test_a_grid_may_end_at_the_image_itself():
    assert append_zero(karras(3)).tolist() == [*karras(3).tolist(), 0.0]


def test_the_middle_of_two_jumps_lies_between_the_published_ones():
    """0.585 for CIFAR-10 and 1.382 to 4.366 elsewhere; 0.821 for easy consistency tuning."""
    assert 0.5 < multistep_schedule(2)[1].item() < 1.5


def test_native_time_of_the_variance_exploding_process_is_log_uniform():
    process = VE(0.01, 50.0)
    assert torch.allclose(uniform_in_time(process, 9, 1.0, 0.0), log_uniform(9, 0.01, 50.0), rtol=1e-12)


def test_native_time_of_the_variance_preserving_process():
    """``sigma^2 = exp(9.95 t^2 + 0.1 t) - 1``, whose ends EDM gives as 152.17 and 0.0105."""
    levels = uniform_in_time(VP(), 3)
    assert levels.tolist() == pytest.approx(
        [152.167, (2.718281828459045 ** (9.95 * 0.5005**2 + 0.05005) - 1) ** 0.5, 0.010486]
    )


def test_even_rungs_keep_the_ends_within_the_levels():
    ladder = torch.arange(100, 0, -1, dtype=torch.float64)
    assert evenly_spaced_steps(ladder, 4, 10.0, 40.0).tolist() == [40.0, 30.0, 20.0, 10.0]
    assert evenly_spaced_steps(ladder, 3).tolist() == [100.0, 50.0, 1.0]


def test_between_two_levels_of_a_grid_lies_a_finer_one():
    fine, coarse = karras(13), karras(5)
    steps = karras_between(coarse[:-1], coarse[1:], 3)
    assert steps.shape == (4, 4)
    assert torch.equal(steps[0], coarse[:-1])
    assert torch.equal(steps[-1], coarse[1:])
    assert torch.allclose(steps[1:3].T.flatten(), fine[[1, 2, 4, 5, 7, 8, 10, 11]], rtol=1e-12)
    assert karras_between(torch.tensor(80.0), torch.tensor(1.0), 1).tolist() == [80.0, 1.0]
