"""CTM and MeanFlow at an exact flow map: nothing is left to learn, and what is wrong is seen."""

import math
from itertools import pairwise

import pytest
import torch
from expectations import quadrature
from oracles import AnisotropicGaussian, Gaussian, Mixture, golden_line
from torch import Tensor

from cmtool.core.denoiser import TARGET_DIM, Denoiser, Preconditioning
from cmtool.core.flow_map import flow_map_step
from cmtool.core.jvp import forward_mode
from cmtool.core.sigma_schedules import karras
from cmtool.errors import UsageError
from cmtool.objectives.ctm import DenoisingTerm, Trajectory, choose_steps, ctm
from cmtool.objectives.distances import METRICS
from cmtool.objectives.meanflow import average_velocity, meanflow
from cmtool.objectives.noise_levels import split_uniform
from cmtool.objectives.objective import Batch
from cmtool.options import registry
from cmtool.testing import small_model

ROUND = Gaussian(torch.tensor([0.3, -0.2]), 0.4)
TILTED = AnisotropicGaussian([0.3, -0.2, 0.5], [[0.3, 0.1, 0.0], [0.1, 0.2, -0.05], [0.0, -0.05, 0.4]])
ALL = {"round": ROUND, "tilted": TILTED, "line": golden_line()}
GAUSSIAN = {"round": ROUND, "tilted": TILTED}


def spread(data, n: int) -> Batch:
    generator = torch.Generator().manual_seed(0)
    x = data.sample(n, generator)
    z = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    return Batch(x, z, torch.rand(n, generator=generator, dtype=torch.float64))


class Held(torch.nn.Module):
    """A function as a module, which can be copied."""

    def __init__(self, call):
        super().__init__()
        self.call = call

    def forward(self, *given, **more):
        return self.call(*given, **more)


def trajectory(data, metric: str, balance: float = 0.0) -> Trajectory:
    """CTM whose solver is the exact flow."""
    return Trajectory(
        data,
        lambda field, x, t, s: data.flow(x, t, s),
        karras(18).double(),
        choose_steps(18, 17),
        METRICS[metric],
        0.9,
        DenoisingTerm(lambda u: 0.1 + 3 * u, lambda sigma: 1 / sigma**2, balance),
    )


@pytest.mark.parametrize("metric", sorted({*METRICS} - {"l2-32"}))  # which compares images, not points
@pytest.mark.parametrize("name", ALL)
def test_two_ways_to_one_image_agree_for_the_exact_map(name, metric):
    data = ALL[name]
    objective, batch = trajectory(data, metric), spread(data, 40)
    objective.begin(Held(data.flow_map))
    assert objective.loss(data.flow_map, batch, 0.0).abs().max() < 1e-12
    wrong = objective.loss(lambda x, t, labels, target_sigma: data(x, t), batch, 0.0)
    assert wrong.max() > 1e-4, "Euler steps with the denoiser are not the flow"


def test_the_second_term_is_denoising_without_a_jump():
    objective, batch = trajectory(ROUND, "l2", balance=0.5), spread(ROUND, 40)
    objective.begin(Held(ROUND.flow_map))
    sigma = 0.1 + 3 * split_uniform(batch.u, 4)[3]
    error = ROUND(batch.x + sigma[:, None] * batch.z, sigma) - batch.x
    expected = 0.5 * error.square().mean(1) / sigma**2
    torch.testing.assert_close(objective.loss(ROUND.flow_map, batch, 0.0), expected, rtol=1e-9, atol=1e-12)


def test_a_coarse_solver_leaves_its_own_error():
    """What the loss sees of the exact map is the error of Heun's steps: a quarter at twice the levels, in the mean."""
    batch, losses = spread(ROUND, 4000), []
    for steps, substeps in ((41, 1), (81, 2), (161, 4)):
        objective = ctm(ROUND, steps=steps, substeps=substeps, metric="l1", balance=0.0)
        objective.choice = lambda a, b, c, n=steps - 1, h=substeps: (
            h * (a * 40).long(),
            torch.full((len(a),), h),
            torch.full((len(a),), n),
        )
        objective.begin(Held(ROUND.flow_map))
        losses.append(objective.loss(ROUND.flow_map, batch, 0.0).mean().item())
    assert [math.log2(a / b) for a, b in pairwise(losses)] == pytest.approx([2, 2], abs=0.1)


@pytest.mark.parametrize("most", [1, 4, 17])
def test_ends_come_after_steps_and_all_are_visited(most):
    u = split_uniform((torch.arange(400_000, dtype=torch.float64) + 0.5) / 400_000 * 0.999983 + 1e-9, 3)
    i, h, j = choose_steps(18, most)(*u)
    assert (i.min(), i.max(), h.min(), h.max(), j.max()) == (0, 16, 1, most, 17)
    assert bool(((i + h <= j) & (i + h <= 17)).all())


@pytest.mark.parametrize("options", [{"steps": 1}, {"substeps": 0}])
def test_what_cannot_be_walked_is_refused(options):
    with pytest.raises(UsageError, match="must be at least"):
        registry.build("distill", {"name": "ctm", **options}, small_model((2,)))


def mean_batch(data, t: Tensor, z_t: Tensor, u: Tensor) -> Batch:
    """The batch that meets z_t at time t with the mean velocity there: its image is the denoiser's."""
    image = data(z_t / (1 - t)[:, None], t / (1 - t))
    return Batch(image, (z_t - (1 - t)[:, None] * image) / t[:, None], u)


@pytest.mark.parametrize("name", GAUSSIAN)
def test_the_exact_average_velocity_satisfies_the_identity(name):
    data, objective = GAUSSIAN[name], meanflow()
    u = torch.rand(60, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    t, r = objective.times(u)
    z_t = (1 - t)[:, None] * data.sample(60, torch.Generator().manual_seed(2)) + t[:, None] * 0.7
    batch = mean_batch(data, t, z_t, u)
    assert bool((r < t).any()) and bool((r == t).any())
    assert objective.loss(data.flow_map, batch, 0.0).max() < 1e-16
    assert objective.loss(lambda x, s, labels, target_sigma: data(x, s), batch, 0.0).max() > 0.1


def test_the_closed_form_of_a_gaussian():
    """``u = z (1 - b(r)/b(t)) / (t - r)`` with ``b(t)^2 = (1 - t)^2 s^2 + t^2``."""
    s, data = 0.5, Gaussian(0.0, 0.5)
    t, r = torch.tensor([0.9, 0.5, 0.3], dtype=torch.float64), torch.tensor([0.1, 0.4, 0.0], dtype=torch.float64)
    z = torch.tensor([[0.3], [-1.0], [0.8]], dtype=torch.float64)

    def b(t):
        return ((1 - t) ** 2 * s**2 + t**2).sqrt()

    expected = z * (1 - b(r) / b(t))[:, None] / (t - r)[:, None]
    torch.testing.assert_close(average_velocity(data.flow_map, z, t, r), expected, rtol=1e-12, atol=1e-13)


def test_with_the_flow_preconditioning_the_network_is_the_velocity():
    model = small_model((2,), target_dim=TARGET_DIM)
    model.preconditioning = Preconditioning.named("flow")
    t, r, z = torch.tensor([0.9, 0.2]), torch.tensor([0.3, 0.1]), torch.randn(2, 2)
    seen = []
    model.net.register_forward_hook(lambda net, given, out: seen.append((given[0], given[1], out)))
    u = average_velocity(model, z, t, r)
    for ours, network in zip((z, 4 * t, u), seen[0], strict=True):
        torch.testing.assert_close(ours, network, rtol=1e-5, atol=1e-5)
    x, sigma, s = z / (1 - t)[:, None], t / (1 - t), r / (1 - r)
    moved = (z - (t - r)[:, None] * u) / (1 - r)[:, None]
    torch.testing.assert_close(flow_map_step(model, x, sigma, s), moved, rtol=1e-5, atol=1e-5)


def test_the_derivative_is_that_along_the_path_at_fixed_r():
    model = Denoiser(small_model((2,), target_dim=TARGET_DIM).net.double(), Preconditioning.named("flow"))
    z, v = torch.randn(2, 4, 2, dtype=torch.float64)
    t, r = torch.tensor([0.9, 0.5, 0.3, 0.2]).double(), torch.tensor([0.1, 0.5, 0.2, 0.01]).double()
    _, slope = forward_mode(lambda z, t: average_velocity(model, z, t, r), (z, t), (v, torch.ones_like(t)))
    with torch.no_grad():
        ahead, behind = (average_velocity(model, z + h * v, t + h, r) for h in (1e-5, -1e-5))
    torch.testing.assert_close(slope, (ahead - behind) / 2e-5, rtol=0, atol=1e-7)


def test_single_velocities_are_right_in_the_mean():
    """With weight 1 the expected gradient vanishes at the exact map, although the loss does not."""
    data, theta = Gaussian(0.0, 0.5), torch.zeros((), dtype=torch.float64, requires_grad=True)
    batch, weights = quadrature(Mixture.line((1.0,), (0.0,), (0.5,)), 8)
    objective = meanflow(power=0.0)

    def bent(x: Tensor, sigma: Tensor, labels: Tensor | None, target_sigma: Tensor) -> Tensor:
        place = (target_sigma / (1 + target_sigma))[:, None]
        return data.flow_map(x, sigma, labels, target_sigma) + theta * place * x

    for t, r in ((0.8, 0.1), (0.5, 0.45), (0.3, 0.3)):
        objective.times = lambda u, t=t, r=r: (0 * u + t, 0 * u + r)
        loss = objective.loss(bent, batch, 0.0)
        (mean,) = torch.autograd.grad((weights * loss).sum(), theta, retain_graph=True)
        (single,) = torch.autograd.grad(loss[0], theta)
        assert abs(mean) < 1e-10 < 1e-3 < abs(single)


def test_a_share_of_the_pairs_is_flow_matching():
    u = (torch.arange(40_000, dtype=torch.float64) + 0.5) / 40_000
    t, r = meanflow(share=0.25).times(u)
    assert bool((r <= t).all()) and float((r < t).double().mean()) == pytest.approx(0.25, abs=0.01)
    assert t.max() <= 80 / 81
