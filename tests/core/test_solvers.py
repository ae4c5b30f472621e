"""Every registered solver converges with the order it states, up and down, on data that are no Gaussian.

Solvers that remember begin with a step of lower order, as published. Where a walk begins at one end of the levels, the
denoised image hardly changes there and the start costs nothing; in their middle it would.
"""

import math
from itertools import pairwise

import pytest
import torch
from oracles import Gaussian, golden_line

from cmtool.core.denoiser import ode_field
from cmtool.core.sampling.loops import CountNFE
from cmtool.core.sigma_schedules import karras, log_uniform
from cmtool.core.solvers import euler, heun, integrate
from cmtool.errors import UsageError
from cmtool.options import registry

BUILT = {name: registry.build("solvers", name) for name in registry.names("solvers")}
SOLVERS = list(BUILT)
FIXED = [name for name, solver in BUILT.items() if solver.nfe_per_step is not None]
SPECS = [
    *FIXED,
    "heun alpha=0.5",
    "midpoint mean=log",
    "midpoint mean=linear",
    "dpmpp-3m corrected=false",
    *(f"unipc order={order} variant={variant}" for order in (1, 2, 3) for variant in ("bh1", "bh2")),
]
STARTS = torch.tensor([[-104.0], [-16.0], [8.0], [72.0], [160.0]], dtype=torch.float64)
STEPS = (160, 320, 640)


def built(spec: str):
    name, *options = spec.split()
    return registry.build("solvers", {"name": name, **dict(option.split("=") for option in options)})


def slopes(solver, x: torch.Tensor, end: torch.Tensor, grids: list[torch.Tensor]) -> list[float]:
    """log2 of the ratio of mean errors at the end of successive grids, each of twice the steps of the one before."""
    field = ode_field(golden_line())
    errors = []
    for grid in grids:
        *_, reached = integrate(field, x, grid, solver)
        errors.append(float((reached - end).abs().mean()))
    return [math.log2(coarse / fine) for coarse, fine in pairwise(errors)]


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("grid", [karras, log_uniform])
def test_measured_order_is_the_stated_one(spec, grid):
    end = golden_line().consistency(STARTS, 80.0, 0.002)
    measured = slopes(built(spec), STARTS, end, [grid(n + 1) for n in STEPS])
    assert measured == pytest.approx([built(spec).order] * 2, abs=0.16)


@pytest.mark.parametrize("spec", SPECS)
def test_a_walk_up_has_the_same_order(spec):
    solver, data = built(spec), golden_line()
    x = torch.tensor([[-1.1], [-0.6], [0.2], [0.9]], dtype=torch.float64)
    grids = [log_uniform(n + 1).flip(0) for n in STEPS]
    assert slopes(solver, x, data.flow(x, 0.002, 80.0), grids) == pytest.approx([solver.order] * 2, abs=0.16)


def test_the_orders_are_those_of_the_papers():
    stated = {"euler": 1, "ddim": 1, "ancestral": 1, "heun": 2, "midpoint": 2, "rk4": 4, "rk45": 5, "scipy": 5}
    stated |= {"dpmpp-2s": 2, "dpmpp-3s": 3, "dpmpp-2m": 2, "dpmpp-3m": 3, "unipc": 4}
    assert {name: built(name).order for name in stated} == stated
    assert [built(f"unipc order={p}").order for p in (1, 2, 3)] == [2, 3, 4]
    assert built("dpmpp-3m corrected=false").order == 2


@pytest.mark.parametrize("name", FIXED)
def test_a_step_asks_as_often_as_stated(name):
    solver, model = built(name), CountNFE(golden_line())
    list(integrate(ode_field(model), STARTS, karras(12), solver))
    assert model.calls == 11 * solver.nfe_per_step


def test_evaluations_are_those_of_the_papers():
    one = ("euler", "ddim", "ancestral", "dpmpp-2m", "dpmpp-3m", "unipc")
    stated = dict.fromkeys(one, 1) | {"heun": 2, "midpoint": 2, "dpmpp-2s": 2, "dpmpp-3s": 3, "rk4": 4}
    assert {name: built(name).nfe_per_step for name in FIXED} == stated


@pytest.mark.parametrize("name", SOLVERS)
def test_each_row_may_have_its_own_times(name):
    """Distillation steps every image between levels of its own."""
    solver, field = built(name), ode_field(golden_line())
    t, s = torch.tensor([80.0, 3.0, 0.5, 0.1, 2.0]).double(), torch.tensor([60.0, 2.5, 0.4, 0.3, 0.002]).double()
    alone = torch.cat([solver(field, STARTS[i : i + 1], t[i], s[i]) for i in range(5)])
    assert torch.allclose(solver(field, STARTS, t, s), alone, rtol=1e-14)


@pytest.mark.parametrize("name", ["dpmpp-2m", "dpmpp-3m", "unipc"])
def test_what_a_walk_remembers_ends_with_it(name):
    solver, field, grid = built(name), ode_field(golden_line()), karras(6)
    walks = [list(integrate(field, STARTS, grid, solver)) for _ in range(2)]
    assert all(torch.equal(*pair) for pair in zip(*walks, strict=True))
    assert torch.equal(solver(field, STARTS, grid[0], grid[1]), walks[0][0])
    assert not torch.allclose(solver(field, walks[0][2], grid[3], grid[4]), walks[0][3], rtol=1e-6)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("midpoint mean=geometric", "unknown value of option 'mean' of solver 'midpoint' 'geometric'"),
        ("unipc variant=bh3", "unknown value of option 'variant' of solver 'unipc' 'bh3'"),
        ("unipc order=4", "option 'order' of solver 'unipc' must be 1, 2 or 3, not 4"),
        ("heun alpha=0", "option 'alpha' of solver 'heun' must be above 0, up to 1, not 0"),
        ("scipy method=Euler", "unknown value of option 'method' of solver 'scipy' 'Euler'"),
        ("rk45 rtol=0", "option 'rtol' of solver 'rk45' must be greater than 0"),
    ],
)
def test_options_that_cannot_be(spec, words):
    with pytest.raises(UsageError, match=words):
        built(spec)


def test_integrate_yields_the_walk():
    field, grid = ode_field(golden_line()), karras(4)
    walk = list(integrate(field, STARTS, grid, heun()))
    assert len(walk) == 3
    assert torch.equal(walk[2], heun()(field, walk[1], grid[2], grid[3]))


@pytest.mark.parametrize(
    ("solver", "n", "product"),
    [
        (euler, 2, 6.4059997656e-5),
        (euler, 18, 5.2879775614e-3),
        (euler, 40, 5.8107276512e-3),
        (euler, 151, 6.1326355912e-3),
        (heun, 18, 6.5954134874e-3),
        (heun, 40, 6.3110617836e-3),
        (heun, 151, 6.2538956164e-3),
    ],
)
def test_a_gaussian_contracts_by_the_recorded_product(solver, n, product):
    *_, x = integrate(ode_field(Gaussian(0.0, 0.5)), torch.ones(1, 1, dtype=torch.float64), karras(n), solver())
    assert x.item() == pytest.approx(product, rel=1e-10)


def test_heun_is_exact_for_a_field_linear_in_time_and_euler_for_a_constant_one():
    t, s, x = torch.tensor(1.0), torch.tensor(3.0), torch.zeros(1, 1)
    assert heun()(lambda x, t: t.expand_as(x), x, t, s).item() == 4.0
    assert euler()(lambda x, t: torch.full_like(x, 0.5), x, t, s).item() == 1.0


def test_the_last_slope_is_taken_at_the_end_itself():
    """t + (s - t) may miss s by a rounding, and a network must not be asked about a level below its lowest."""
    pairs = [pair for n in range(2, 41) for pair in pairwise(karras(n))]
    assert any(t + (s - t) != s for t, s in pairs)
    for t, s in pairs:
        asked = []
        heun()(lambda x, t, asked=asked: asked.append(t) or x, torch.ones(1, 1), t, s)
        assert asked == [t, s]
