"""Walks of a few jumps: progressive and multistep distillation against their formulas and against each other."""

import math
from itertools import pairwise

import pytest
import torch
from expectations import EPS
from oracles import Gaussian, Oracle, golden_line
from test_consistency import batch, scaled
from test_exact import LINES, spread
from torch import Tensor

from cmtool.core.denoiser import broadcast_like
from cmtool.core.sampling.loops import last, probability_flow
from cmtool.core.sigma_schedules import append_zero, karras
from cmtool.core.solvers import euler
from cmtool.errors import UsageError
from cmtool.objectives.consistency_2023 import cd
from cmtool.objectives.distances import l2
from cmtool.objectives.multistep_distillation import ddim_step, mcd, next_below, pd
from cmtool.testing import small_model


class Jumper:
    """The perfect denoiser for a walk: it points to where the chord of the exact trajectory meets level 0."""

    def __init__(self, data: Oracle, boundaries: Tensor):
        self.data, self.boundaries = data, boundaries

    def __call__(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        s = next_below(sigma, self.boundaries)
        return x + broadcast_like(sigma / (sigma - s), x) * (self.data.flow(x, sigma, s) - x)


def test_the_next_boundary_lies_below():
    grid = torch.tensor([80.0, 5.0, 1.0, 0.002], dtype=torch.float64)
    t = torch.tensor([80.0, 5.1, 5.0, 4.9, 1.0, 0.5, 0.0021], dtype=torch.float64)
    assert next_below(t, grid).tolist() == [5.0, 5.0, 1.0, 1.0, 0.002, 0.002, 0.002]


def test_a_jump_is_a_step_of_euler():
    x, t, s = batch().x, torch.tensor(3.0), torch.tensor(1.0)
    assert torch.allclose(ddim_step(x, t, s, 0.2 * x), x + (1 - 3) * (x - 0.2 * x) / 3, rtol=1e-6)


@pytest.mark.parametrize("name", LINES)
@pytest.mark.parametrize("segments", [1, 2, 5])
def test_the_exact_jumps_have_no_loss(name, segments):
    data = LINES[name]
    objective = mcd(data, segments=segments, steps=10, decay=0.0)
    objective.previous_point = lambda x_t, batch, t, r: data.flow(x_t, t, r)
    perfect = Jumper(data, objective.boundaries())
    assert objective.loss(perfect, spread(data, 60), 0.0).max() < 1e-20
    if segments > 1:
        assert objective.loss(Jumper(data, objective.boundaries()[[0, -1]]), spread(data, 60), 0.0).max() > 1e-4


def test_with_one_solver_step_the_loss_falls_at_the_order_of_the_solver():
    """One step of Heun's errs by N^-3 where the jump ends; x_0 sees that through t/(t - s), taken off here."""
    data, losses = golden_line(), []
    for steps in (160, 320, 640):
        objective = mcd(data, segments=2, steps=steps, metric="l1", decay=0.0)
        grid = objective.boundaries()
        objective.weight = lambda t, r, grid=grid: (t - next_below(t, grid)) / t
        losses.append(objective.loss(Jumper(data, grid), spread(data, 400), 0.0).mean().item())
    slopes = [math.log2(coarse / fine) for coarse, fine in pairwise(losses)]
    assert slopes == pytest.approx([3, 3], abs=0.06)


def test_one_segment_is_consistency_distillation():
    """``f = jump(x, t, EPS, D)``, and differences of D count ``((t - EPS)/t)^2`` as much there."""
    data, b = Gaussian(torch.tensor([0.3, -0.2]), 0.4), spread(Gaussian(torch.tensor([0.3, -0.2]), 0.4), 30)
    ours, theirs = mcd(data, segments=1, steps=9, decay=0.0), cd(data, steps=10, decay=0.0)
    ours.metric = theirs.metric = l2
    ours.weight = lambda t, r: ((t - EPS) / t) ** 2

    def denoiser(x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        return 0.7 * x / (1 + broadcast_like(sigma, x))

    def ends(x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        return ddim_step(x, sigma, torch.full_like(sigma, EPS), denoiser(x, sigma))

    assert torch.allclose(ours.loss(denoiser, b, 0.0), theirs.loss(ends, b, 0.0), rtol=1e-8)


def test_a_step_of_the_student_is_two_of_the_teacher():
    """``x_0 = x_t - t (x'' - x_t)/(t'' - t)`` with numbers (Salimans and Ho 2022, in sigma)."""
    teacher, b = small_model((3,)), batch()
    objective, model = pd(teacher, first=4), scaled(0.7)
    t, r = objective.pair(b.u, 0.0)
    assert torch.equal(t, karras(5)[[0, 1, 1, 2, 3, 3]])
    middle = ((t ** (1 / 7) + r ** (1 / 7)) / 2) ** 7
    x_t = b.x + broadcast_like(t, b.x) * b.z
    with torch.no_grad():
        half = x_t + broadcast_like((middle - t) / t, x_t) * (x_t - teacher(x_t, t))
        end = half + broadcast_like((r - middle) / middle, x_t) * (half - teacher(half, middle))
    x_0 = x_t - broadcast_like(t / (r - t), x_t) * (end - x_t)
    weight = (t**-2).clamp(min=1).float()
    loss = objective.loss(model, b, 0.0)
    assert torch.allclose(loss, weight * (0.7 * x_t - x_0).square().mean(1), rtol=1e-3)
    assert model.asked == [t.tolist()], "the lower end of a step needs no network"


def test_the_student_becomes_the_teacher_when_the_steps_halve():
    model = small_model((3,))
    objective, again, seen = pd(model, first=4), pd(model, first=4), []
    for each in (objective, again):
        each.begin(model)
    for k in range(5):
        with torch.no_grad():
            next(model.parameters()).add_(0.1)
        objective.update(model, (k + 0.5) / 5)  # 4, 2, 2, 1, 1
        seen.append((int(objective.steps), next(objective.guide.parameters()).flatten()[0].item()))
    values = [value for _, value in seen]
    assert [steps for steps, _ in seen] == [4, 2, 2, 1, 1]
    assert values[1] == values[2] == pytest.approx(values[0] + 0.2, rel=1e-5)
    assert values[3] == values[4] == pytest.approx(values[0] + 0.4, rel=1e-5)
    assert objective.sampling_sigmas == [80.0]
    again.load_state_dict(objective.state_dict())
    assert torch.equal(again.loss(model, batch(), 0.9), objective.loss(model, batch(), 0.9))
    assert again.sampling_sigmas == [80.0]


def test_the_walk_of_the_levels_ends_where_the_jumps_do():
    """Euler on ``sampling`` and then 0: the last jump goes to the image that it points to."""
    data = golden_line()
    objective = mcd(data, segments=3, steps=12)
    perfect = Jumper(data, objective.boundaries())
    levels = append_zero(torch.tensor(objective.sampling_sigmas, dtype=torch.float64))
    x = 80 * torch.tensor([[-1.3], [-0.2], [0.1], [0.9], [2.0]], dtype=torch.float64)
    end = last(probability_flow(perfect, x, levels, euler()))
    assert torch.allclose(end, data.consistency(x, 80.0, EPS), rtol=0, atol=EPS)


def test_mistakes_are_named():
    teacher = small_model((3,))
    for first, final in ((12, 1), (8, 3), (0, 1), (4, 8), (4, 0)):
        with pytest.raises(UsageError, match=f"{first} cannot be halved to {final}"):
            pd(teacher, first=first, last=final)
    for segments in (0, 19):
        with pytest.raises(UsageError, match="a step for each segment"):
            mcd(teacher, segments=segments)
