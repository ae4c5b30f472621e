"""Images become noise and come back."""

import torch
from oracles import Gaussian

from cmtool.core.inversion import STEPS, invert_by_search, invert_ode
from cmtool.core.noise import Noise, SlerpNoise
from cmtool.core.sampling.loops import last, probability_flow
from cmtool.core.sigma_schedules import karras
from cmtool.core.solvers.runge_kutta import heun
from cmtool.testing import small_model
from cmtool.testing.common import fix_seed


def test_along_the_flow_of_a_gaussian():
    """``z`` with ``sigma z`` at the upper end of the trajectory within 2 %, and back within less than a grey level."""
    data, x = Gaussian(0.1, 0.4), Noise([1, 2]).normal((3, 4, 4)).double() / 3
    z = invert_ode(data, x, 0.002, 80.0)
    torch.testing.assert_close(z, data.flow(x, 0.002, 80.0) / 80, rtol=0.02, atol=1e-3)
    back = last(probability_flow(data, 80 * z, karras(STEPS), heun()))
    torch.testing.assert_close(back, x, rtol=0, atol=4e-3)


def test_a_search_finds_an_image_of_the_model_on_the_sphere():
    with fix_seed():
        model = small_model((2, 3, 3), sigma_min=0.002).requires_grad_(False)
    level = torch.tensor([80.0], dtype=torch.float64)
    target = model(80 * Noise([7]).normal((2, 3, 3)), level)
    z = invert_by_search(model, target, 80.0, steps=100)
    assert abs(float(z.norm()) - 18**0.5) < 1e-5
    assert float((model(80 * z, level) - target).square().mean()) < 0.02 * float(target.square().mean())
    assert torch.equal(z, invert_by_search(model, target, 80.0, steps=100))


def test_a_grid_has_its_four_corners_and_rows_that_are_walks():
    grid = SlerpNoise([3, 7, 11, 15], 4, 3).normal((2, 5, 5)).view(3, 4, 2, 5, 5)
    corners = Noise([3, 7, 11, 15]).normal((2, 5, 5))
    for at, z in zip(((0, 0), (0, 3), (2, 0), (2, 3)), corners, strict=True):
        assert torch.equal(grid[at], z)
    assert torch.equal(grid[0], SlerpNoise([3, 7], 4).normal((2, 5, 5)))
    assert torch.equal(grid[2], SlerpNoise([11, 15], 4).normal((2, 5, 5)))
    assert torch.equal(grid[:, 0], SlerpNoise([3, 11], 3).normal((2, 5, 5)))


def test_an_end_may_bring_its_own_first_noise():
    own = torch.ones(2, 5, 5)
    blend = SlerpNoise([0, 7], 3, starts=[own, None])
    assert torch.equal(blend.normal((2, 5, 5))[0], own)
    assert torch.equal(blend.normal((2, 5, 5))[2], Noise([7]).normal((2, 5, 5))[0])
    assert torch.equal(blend.normal((2, 5, 5), 1 << 16)[0], Noise([0]).normal((2, 5, 5), 1 << 16)[0])
