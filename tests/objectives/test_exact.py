"""At the exact consistency function the pairwise loss and its gradient vanish, at the order that theory states."""

import math
from itertools import pairwise

import pytest
import torch
from expectations import EPS, gentle, quadrature
from oracles import AnisotropicGaussian, Gaussian, Mixture, Oracle, golden_line
from torch import Tensor

from cmtool.objectives.consistency import Consistency, adjacent_pair, along_noise
from cmtool.objectives.consistency_2023 import cd
from cmtool.objectives.distances import METRICS, l2
from cmtool.objectives.objective import Batch

ROUND = Gaussian(torch.tensor([0.3, -0.2]), 0.4)
TILTED = AnisotropicGaussian([0.3, -0.2, 0.5], [[0.3, 0.1, 0.0], [0.1, 0.2, -0.05], [0.0, -0.05, 0.4]])
PLANE = Mixture([0.6, 0.4], [[1.0, 0.5], [-1.2, 0.8]], [[[0.09, 0.05], [0.05, 0.08]], [[0.02, 0.0], [0.0, 0.25]]])
ALL = {"round": (ROUND, 18), "tilted": (TILTED, 18), "line": (golden_line(), 18), "plane": (PLANE, 5)}  # data, levels
LINES = {"round": ROUND, "tilted": TILTED, "line": golden_line()}


class Bent:
    """The exact consistency function plus ``theta (sigma - eps) sin(x / (1 + sigma))``, which keeps the boundary."""

    def __init__(self, data: Oracle):
        self.exact = data.student(EPS)
        self.theta = torch.zeros((), dtype=torch.float64, requires_grad=True)

    def __call__(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.exact(x, sigma) + self.theta * (sigma - EPS)[:, None] * (x / (1 + sigma[:, None])).sin()

    def slope(self, loss: Tensor) -> float:
        return float(torch.autograd.grad(loss, self.theta)[0])


def spread(data: Oracle, n: int) -> Batch:
    """Images, noise and evenly spread u."""
    generator = torch.Generator().manual_seed(0)
    x = data.sample(n, generator)
    z = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    return Batch(x, z, (torch.arange(n, dtype=torch.float64) + 0.5) / n)


@pytest.mark.parametrize("metric", sorted({*METRICS} - {"l2-32"}))  # which compares images, not points
@pytest.mark.parametrize("name", ALL)
def test_the_loss_between_two_ends_of_an_exact_walk_is_zero(name, metric):
    data, levels = ALL[name]
    objective = Consistency(
        pair=lambda u, progress: adjacent_pair(u, levels, EPS, 80.0),
        previous_point=lambda x_t, batch, t, r: data.flow(x_t, t, r),
        metric=METRICS[metric],
    )
    loss = objective.loss(data.student(EPS), spread(data, 12), 0.0)
    assert loss.abs().max() < 1e-12
    wrong = objective.loss(lambda x, sigma, labels: data(x, sigma), spread(data, 12), 0.0)
    assert wrong.max() > 1e-4  # the denoiser is not the consistency function


@pytest.mark.parametrize("name", ALL)
def test_the_gradient_at_the_exact_function_is_zero(name):
    data, levels = ALL[name]
    objective = Consistency(
        pair=lambda u, progress: adjacent_pair(u, levels, EPS, 80.0),
        previous_point=lambda x_t, batch, t, r: data.flow(x_t, t, r),
        metric=l2,
    )
    model, batch = Bent(data), spread(data, 12)
    assert abs(model.slope(objective.loss(model, batch, 0.0).mean())) < 1e-11
    model.theta.data += 0.01
    assert abs(model.slope(objective.loss(model, batch, 0.0).mean())) > 1e-3


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2)])
@pytest.mark.parametrize("name", LINES)
def test_the_loss_of_distillation_falls_with_the_error_of_one_solver_step(name, solver, order):
    """One step of order p over 1/N of the way errs by N^-(p+1), and so does what cd sees of the exact function."""
    data = LINES[name]
    losses = [
        cd(data, steps=n, solver=solver, metric="l1").loss(data.student(EPS), spread(data, 400), 0.0).mean().item()
        for n in (161, 321, 641)
    ]
    slopes = [math.log2(coarse / fine) for coarse, fine in pairwise(losses)]
    assert slopes == pytest.approx([order + 1, order + 1], abs=0.03)


def along_noise_slopes(t: float, gaps: list[float]) -> list[float]:
    """The expected gradient at the exact function when x_r shares the noise of x_t, at ``r = t (1 - gap)``."""
    model, (batch, weights) = Bent(gentle()), quadrature(gentle())
    slopes = []
    for gap in gaps:
        objective = Consistency(
            lambda u, progress, r=t * (1 - gap): (torch.full_like(u, t), torch.full_like(u, r)), along_noise, l2
        )
        slopes.append(model.slope((weights * objective.loss(model, batch, 0.0)).sum()))
    return slopes


@pytest.mark.parametrize("t", [0.1, 0.5, 2.0, 20.0])
def test_without_a_teacher_the_expected_gradient_vanishes_with_the_square_of_the_gap(t):
    """``E[x_r | x_t]`` is an Euler step, and the spread of x_r around it meets the curvature of f: (t - r)^2 both."""
    orders = [math.log2(abs(coarse / fine)) for coarse, fine in pairwise(along_noise_slopes(t, [0.02, 0.01, 0.005]))]
    assert orders == pytest.approx([2, 2], abs=0.04)


def test_without_a_teacher_single_gradients_do_not_vanish():
    """It is the expectation that does: the noise of one image leaves a gradient of first order in the gap."""
    data = gentle()
    model, batch = Bent(data), spread(data, 1)
    objective = Consistency(lambda u, progress: (0 * u + 0.5, 0 * u + 0.4975), along_noise, l2)
    assert abs(model.slope(objective.loss(model, batch, 0.0).mean())) > 100 * abs(along_noise_slopes(0.5, [0.005])[0])


def test_expected_gradient_on_a_gaussian_is_the_closed_form():
    """``d/dtheta E[(f_t(x_t) - f_r(x_r))^2]`` for the perturbation ``theta x``, with r fixed, at f_t(x) = a(t) x:

    2 (a(t) (s^2 + t^2) - a(r) (s^2 + t r)),   a(t)^2 = (s^2 + eps^2) / (s^2 + t^2)
    """
    s, t, r = 0.5, 2.0, 0.7
    theta = torch.zeros((), dtype=torch.float64, requires_grad=True)
    exact = Gaussian(0.0, s).student(EPS)
    objective = Consistency(lambda u, progress: (0 * u + t, 0 * u + r), along_noise, l2)
    line = Mixture.line((1.0,), (0.0,), (s,))
    batch, weights = quadrature(line, 4)
    loss = objective.loss(lambda x, sigma, labels: exact(x, sigma) + theta * x, batch, 0.0)
    (slope,) = torch.autograd.grad((weights * loss).sum(), theta)
    a = {level: math.sqrt((s**2 + EPS**2) / (s**2 + level**2)) for level in (t, r)}
    assert slope.item() == pytest.approx(2 * (a[t] * (s**2 + t**2) - a[r] * (s**2 + t * r)), rel=1e-12)
