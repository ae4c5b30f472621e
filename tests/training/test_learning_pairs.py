"""The pairwise methods learn the exact function too: same data, network and number of images as in test_learning."""

import pytest
import torch
from test_learning import DATA, EPS, STD, consistency_errors, one_step, teacher, tell, trained, transport
from torch import Tensor

from cmtool.core.denoiser import Denoise, Denoiser
from cmtool.core.noise import Noise
from cmtool.core.sampling.loops import initial_noise, last, probability_flow
from cmtool.core.sigma_schedules import append_zero
from cmtool.core.solvers import euler
from cmtool.objectives.cmt import cmt
from cmtool.objectives.consistency_2023 import ict
from cmtool.objectives.easy_consistency import ecd, ect, stable
from cmtool.objectives.multistep_distillation import mcd, pd
from cmtool.objectives.tcm import tcm

__all__ = ["teacher"]  # the fixture
IMAGES = 120_000
SOFT = {"weight": "output", "c": 0.3, "sigma_data": STD}


@pytest.mark.parametrize(
    ("name", "recipe", "lr", "worst"),
    [
        ("ict", lambda teacher: ict(s1=160, **SOFT), 2e-3, 0.13),
        ("stable", lambda teacher: stable(**SOFT), 2e-3, 0.08),
        ("ecd", lambda teacher: ecd(teacher, **SOFT), 2e-3, 0.08),
        ("cmt", lambda teacher: cmt(teacher), 4e-3, 0.08),
    ],
    ids=["ict", "stable", "ecd", "cmt"],
)
def test_the_consistency_function_is_learnt(teacher, name, recipe, lr, worst):
    """'cd' and 'ect' err by 0.07 and 0.09; the denoisers of all points at hand tell 'stable' more than single ones."""
    student = trained(recipe(teacher), IMAGES, lr, parent=teacher)
    tell(name, consistency_errors(student), transport(one_step(student)))
    assert max(consistency_errors(student)) < worst
    assert consistency_errors(student)[0] < 0.04
    assert transport(one_step(student)) < 0.11


def test_truncated_training_improves_the_levels_that_it_keeps(teacher):
    first = trained(ect(**SOFT), IMAGES, 2e-3, parent=teacher)
    second = trained(tcm(q=256.0, **SOFT), IMAGES, 1e-3, parent=first)
    tell("tcm", consistency_errors(second), transport(one_step(second)))
    before, after = consistency_errors(first)[2:], consistency_errors(second)[2:]  # 1 and above
    assert max(after) < 0.85 * max(before)
    assert transport(one_step(second)) < 0.8 * transport(one_step(first))


def jumped(model: Denoise, levels: list[float], x: Tensor) -> Tensor:
    """Euler's steps on a model's own levels."""
    return last(probability_flow(model, x, append_zero(torch.tensor(levels, dtype=torch.float64)), euler()))


@torch.no_grad()
def error_of_the_walk(model: Denoiser, levels: list[float]) -> float:
    """From 80 to the image, against the exact function, in standard deviations of the data."""
    x = DATA.noisy(2000, 80.0, torch.Generator().manual_seed(9))
    ends = jumped(model, levels, x.float())
    return (ends - DATA.consistency(x, 80.0, EPS)).square().mean().sqrt().item() / STD


@pytest.mark.parametrize(
    ("name", "recipe", "jumps", "worst"),
    [("pd", pd, 1, 0.12), ("mcd", lambda teacher: mcd(teacher, decay=0.9), 2, 0.08)],
    ids=["pd", "mcd"],
)
def test_a_walk_of_few_steps_is_learnt(teacher, name, recipe, jumps, worst):
    objective = recipe(teacher)
    student = trained(objective, IMAGES, 4e-3, parent=teacher)
    assert len(objective.sampling_sigmas) == jumps
    assert error_of_the_walk(student, objective.sampling_sigmas) < worst
    assert error_of_the_walk(teacher, objective.sampling_sigmas) > 3 * worst
    samples = jumped(student, objective.sampling_sigmas, initial_noise(Noise(range(4000)), (1,), torch.tensor(80.0)))
    tell(f"{name}, {jumps} steps from 80", [error_of_the_walk(student, objective.sampling_sigmas)], transport(samples))
    assert transport(samples) < 0.1
