"""A linear model trained on Gaussian data by our loop and objectives reaches the factor that theory gives it.

One factor a noise level, float64. The batch holds four points a level over which the expected loss is exact, and the
weight makes every level equally steep, so that one step of plain gradient descent is the least-squares solution given
the target, and what is known at the boundary climbs one level a step.
"""

from itertools import pairwise, repeat

import pytest
import torch
from expectations import EPS, two_points
from oracles import Gaussian
from torch import Tensor, nn

from cmtool.core.denoiser import Denoiser, Preconditioning
from cmtool.core.sigma_schedules import karras
from cmtool.objectives.consistency import Consistency
from cmtool.objectives.consistency_2023 import cd, ct, ict
from cmtool.objectives.distances import l2
from cmtool.objectives.easy_consistency import ect
from cmtool.objectives.multistep_distillation import mcd, pd
from cmtool.objectives.objective import Batch
from cmtool.training.ema import EMA
from cmtool.training.loop import train
from cmtool.training.state import State

STD = 0.5
EULER = {2: 6.4059997656e-5, 18: 5.2879775614e-3, 40: 5.8107276512e-3, 151: 6.1326355912e-3}
HEUN = {18: 6.5954134874e-3, 40: 6.3110617836e-3, 151: 6.2538956164e-3}


class Factors(nn.Module):
    """``F(x, c_noise) = a[level] x``."""

    levels: Tensor

    def __init__(self, levels: Tensor):
        super().__init__()
        self.register_buffer("levels", levels.log() / 4)
        self.a = nn.Parameter(torch.zeros_like(levels))

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.a[(c_noise[:, None] - self.levels).abs().argmin(1), None] * x


def linear(levels: Tensor, sigma_min: float) -> Denoiser:
    return Denoiser(Factors(levels), Preconditioning(STD, sigma_min))


def fit(model: Denoiser, objective: Consistency, batch: Batch, steps: int) -> None:
    """Exact least squares as gradient descent; E[(c_in x)^2] = 1, and ``c_out^-2`` undoes the rest of the slope."""
    objective.metric = l2
    objective.weight = lambda t, r: model.preconditioning(t)[1] ** -2
    objective.begin(model)
    state = State(model, objective, torch.optim.SGD(model.parameters(), lr=1.0), EMA(model, 0))
    levels = len(batch) // 4
    for report in train(state, repeat(batch), steps * len(batch), lambda images: levels / 2):
        assert report.finite


def product(objective: Consistency, n: int, steps: int) -> float:
    """The factor from sigma 80 to the image that training on an n-level grid arrives at."""
    u = (torch.arange(n - 1, dtype=torch.float64) + 0.5) / (n - 1)
    model = linear(karras(n), EPS)
    fit(model, objective, two_points(u, STD), steps)
    return model(torch.ones(1, 1, dtype=torch.float64), torch.tensor(80.0, dtype=torch.float64)).item()


def fixed(n: int, decay: float = 0.0) -> Consistency:
    """Consistency training whose grid does not grow."""
    return ct(s0=n, s1=n - 1, decay=decay)


@pytest.mark.parametrize("n", EULER)
def test_consistency_training_learns_the_product_of_euler_steps(n):
    """On Gaussian data training without a teacher is distillation by Euler, exactly."""
    assert product(fixed(n), n, n - 1) == pytest.approx(EULER[n], rel=2e-11)


@pytest.mark.parametrize("n", EULER)
def test_distillation_by_euler_learns_its_product(n):
    assert product(cd(Gaussian(0.0, STD), steps=n, solver="euler", decay=0.0), n, n - 1) == pytest.approx(
        EULER[n], rel=2e-11
    )


@pytest.mark.parametrize("n", HEUN)
def test_distillation_by_heun_learns_its_product(n):
    assert product(cd(Gaussian(0.0, STD), steps=n, solver="heun", decay=0.0), n, n - 1) == pytest.approx(
        HEUN[n], rel=2e-11
    )


def test_the_products_approach_the_exact_factor():
    """Theorem 1 of the paper on numbers: Euler's factor errs by 1/N, Heun's by 1/N^2."""
    exact = Gaussian(0.0, STD).consistency(torch.ones(1, 1), 80.0, EPS).item()
    for products, order in ((EULER, 1), (HEUN, 2)):
        assert (products[40] - exact) / (products[151] - exact) == pytest.approx((150 / 39) ** order, rel=0.1)


def test_a_target_that_lags_leads_to_the_same_factor():
    objective = fixed(18, decay=0.5)
    assert product(objective, 18, 120) == pytest.approx(EULER[18], rel=2e-11)
    assert objective.target is not None
    assert product(fixed(18, decay=0.5), 18, 17) != pytest.approx(EULER[18], rel=1e-3)  # it does take longer


def test_fewer_steps_than_levels_are_not_enough():
    """What is known at the boundary climbs one level a step; a test that passed before that would prove nothing."""
    assert product(fixed(18), 18, 8) != pytest.approx(EULER[18], rel=1e-3)


@pytest.mark.parametrize("n", [18, 40])
def test_improved_consistency_training_learns_it_too(n):
    """Other pairs, drawn more or less often, are the same equations."""
    rising, objective = karras(n).flip(0), ict(s0=n - 1, s1=n - 1)
    below = torch.special.ndtr((rising.log() + 1.1) / 2)
    u = ((below[1:] + below[:-1]) / 2 - below[0]) / (below[-1] - below[0])
    assert torch.equal(objective.pair(u, 0.0)[0], rising[1:])
    model = linear(rising, EPS)
    fit(model, objective, two_points(u, STD), n - 1)
    assert factor(model, 80.0) == pytest.approx(EULER[n], rel=2e-11)


def factor(model: Denoiser, level: float) -> float:
    return model(torch.ones(1, 1, dtype=torch.float64), torch.tensor(level, dtype=torch.float64)).item()


def walked(model: Denoiser, levels: list[float]) -> float:
    """The factor of Euler's steps from level to level."""
    x = 1.0
    for t, s in pairwise(levels):
        x *= s / t + (1 - s / t) * factor(model, t)
    return x


@pytest.mark.parametrize("segments", [1, 3, 17])
def test_the_jumps_of_segments_learn_the_product(segments):
    """Each jump is the product of the steps in its segment, so that all of them are that of the walk."""
    objective = mcd(Gaussian(0.0, STD), segments=segments, steps=17, solver="euler", decay=0.0)
    grid = karras(-(-17 // segments) * segments + 1)
    u = (torch.arange(len(grid) - 1, dtype=torch.float64) + 0.5) / (len(grid) - 1)
    model = linear(grid, 0.0)
    fit(model, objective, two_points(u, STD), len(grid) - 1)
    expected = ((STD**2 + grid[1:] * grid[:-1]) / (STD**2 + grid[:-1] ** 2)).prod().item()
    assert expected == pytest.approx(EULER[18], rel=1e-9) or segments == 3
    assert walked(model, objective.boundaries().tolist()) == pytest.approx(expected, rel=2e-11)


def test_progressive_distillation_learns_the_product_of_the_steps_it_began_with():
    """From 8 steps to 1, through three teachers that were students: 16 of Euler's steps in one."""
    grid = karras(17)
    teacher = linear(grid, 0.0)
    c_skip, c_out, c_in, _ = teacher.preconditioning(grid)
    teacher.net.a.data = ((STD**2 / (STD**2 + grid**2) - c_skip) / (c_out * c_in)).detach()
    model, objective = linear(grid, 0.0), pd(teacher.requires_grad_(False), first=8)
    objective.metric = l2
    objective.weight = lambda t, r: model.preconditioning(t)[1] ** -2
    objective.begin(model)
    batch = two_points((torch.arange(8, dtype=torch.float64) + 0.5) / 8, STD)
    state = State(model, objective, torch.optim.SGD(model.parameters(), lr=1.0), EMA(model, 0))
    for report in train(state, repeat(batch), 18 * len(batch), lambda images: int(objective.steps) / 2):
        assert report.finite
    assert objective.steps == 1
    expected = ((STD**2 + grid[1:] * grid[:-1]) / (STD**2 + grid[:-1] ** 2)).prod().item()
    assert walked(model, [80.0, EPS]) == pytest.approx(expected, rel=2e-11)


def uniform_of(t: Tensor) -> Tensor:
    """The uniform numbers that tuning maps to these levels."""
    return torch.special.ndtr((t.log() + 1.1) / 2)


def test_tuning_begins_as_denoising():
    """Below t = 1.9 stage 0 has r = 0, where the least-squares factor is that of the denoiser, s^2 / (s^2 + t^2)."""
    t = torch.tensor([0.003, 0.05, 0.4, 1.0, 1.9], dtype=torch.float64)
    model = linear(t, EPS)
    fit(model, ect(stages=1), two_points(uniform_of(t), STD), 1)
    factors = model(torch.ones(5, 1, dtype=torch.float64), t)[:, 0]
    assert torch.allclose(factors, STD**2 / (STD**2 + t**2), rtol=1e-10, atol=0)


def test_tuning_later_chains_levels():
    """Where r(t) links the levels, ``a(t) = a(r) (s^2 + t r) / (s^2 + t^2)`` down to a target that is x_r itself."""
    objective, levels = ect(q=8.0, stages=1), torch.tensor([80.0], dtype=torch.float64)
    while levels[-1] > EPS:
        levels = torch.cat([levels, objective.pair(uniform_of(levels[-1:]), 0.0)[1]])
    t, r = levels[:-1], levels[1:]
    assert len(t) == 36
    model = linear(t, EPS)
    fit(model, objective, two_points(uniform_of(t), STD), len(t))
    factor = model(torch.ones(1, 1, dtype=torch.float64), t[0]).item()
    assert factor == pytest.approx(((STD**2 + t * r) / (STD**2 + t**2)).prod().item(), rel=1e-9)
