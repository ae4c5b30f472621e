"""The exponential solvers, as one interpolation, against the formulas that their papers give each of them."""

import math
from itertools import pairwise

import pytest
import torch
from oracles import golden_line

from cmtool.core.denoiser import ode_field
from cmtool.core.process import EDM, VE, VP, FlowMatching, TrigFlow
from cmtool.core.sigma_schedules import karras
from cmtool.core.solvers import euler, heun, integrate
from cmtool.core.solvers.exponential import phi
from cmtool.core.solvers.runge_kutta import NativeTimeSolver
from cmtool.options import registry

X = torch.tensor([[-104.0], [-16.0], [8.0], [72.0], [160.0]], dtype=torch.float64)
GRID = karras(9)
DATA = golden_line()


def walked(name: str, **options) -> list[torch.Tensor]:
    return list(integrate(ode_field(DATA), X, GRID, registry.build("solvers", {"name": name, **options})))


def assert_same(walk: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    assert all(torch.allclose(a, b, rtol=1e-10, atol=1e-12) for a, b in zip(walk, expected, strict=True))


def phis(h: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """phi_1 to phi_3 as DPM-Solver++ writes them."""
    one = torch.expm1(-h)
    two = one / h + 1
    return one, two, two / h - 0.5


def first(x, d, t, s):
    return s / t * x - torch.expm1(-(t / s).log()) * d


def test_one_node_and_none_are_ddim():
    assert_same(walked("euler"), list(accumulated(first_order)))
    assert_same([walked("dpmpp-2m")[0]], [walked("euler")[0]])


def accumulated(step):
    x, past = X, []
    for t, s in pairwise(GRID):
        past = [(t, DATA(x, t)), *past]
        x = step(x, t, s, past)
        yield x


def first_order(x, t, s, past):
    return first(x, past[0][1], t, s)


def second_order(x, t, s, past):
    if len(past) == 1:
        return first_order(x, t, s, past)
    h, before = (t / s).log(), (past[1][0] / t).log()
    return first_order(x, t, s, past) - h / (2 * before) * phis(h)[0] * (past[0][1] - past[1][1])


@pytest.mark.parametrize(("corrected", "factor"), [(True, 2), (False, 1)])
def test_multistep_of_order_two_and_three(corrected, factor):
    def third_order(x, t, s, past):
        if len(past) < 3:
            return second_order(x, t, s, past)
        (_, d0), (t1, d1), (t2, d2) = past[:3]
        h = (t / s).log()
        r0, r1 = (t1 / t).log() / h, (t2 / t1).log() / h
        a, b = (d0 - d1) / r0, (d1 - d2) / r1
        one = a + r0 / (r0 + r1) * (a - b)
        two = factor * (a - b) / (r0 + r1)
        return first(x, d0, t, s) + phis(h)[1] * one - phis(h)[2] * two

    assert_same(walked("dpmpp-2m"), list(accumulated(second_order)))
    assert_same(walked("dpmpp-3m", corrected=corrected), list(accumulated(third_order)))


def test_singlestep_of_order_two():
    def step(x, t, s, past):
        h, middle, d = (t / s).log(), (t * s).sqrt(), past[0][1]
        x1 = middle / t * x - torch.expm1(-h / 2) * d
        return first(x, d, t, s) - phis(h)[0] * (DATA(x1, middle) - d)

    assert_same(walked("dpmpp-2s"), list(accumulated(step)))


def test_singlestep_of_order_three():
    def step(x, t, s, past):
        h, d = (t / s).log(), past[0][1]
        u1, u2 = t * (-h / 3).exp(), t * (-2 * h / 3).exp()
        d1 = DATA(u1 / t * x - torch.expm1(-h / 3) * d, u1)
        phi22 = torch.expm1(-2 * h / 3) / (2 * h / 3) + 1
        d2 = DATA(u2 / t * x - torch.expm1(-2 * h / 3) * d + 2 * phi22 * (d1 - d), u2)
        return first(x, d, t, s) + 1.5 * phis(h)[1] * (d2 - d)

    assert_same(walked("dpmpp-3s"), list(accumulated(step)))


@pytest.mark.parametrize("variant", ["bh1", "bh2"])
@pytest.mark.parametrize("p", [1, 2, 3])
def test_unipc(p, variant):
    """Predict, evaluate, correct with the same D, and keep that D: one evaluation a step."""
    x, t, known = X, GRID[0], [(GRID[0], DATA(X, GRID[0]))]
    expected = []
    for s in GRID[1:]:
        order = min(p, len(known))
        predicted = unified(x, t, s, known[:order], None, variant)
        expected.append(predicted)
        d = DATA(predicted, s)
        x, t, known = unified(x, t, s, known[:order], d, variant), s, [(s, d), *known]
    assert_same(walked("unipc", order=p, variant=variant), expected)


def unified(x, t, s, known, new, variant):
    """UniP, and UniC where D at the end is known: ``rho = R^-1 b`` as in the paper's appendix."""
    p, hh, d0 = len(known), -(t / s).log(), known[0][1]
    r = [float((u / t).log() / hh) for u, _ in known[1:]] + [1.0]
    deltas = [(d - d0) / r_k for (_, d), r_k in zip(known[1:], r, strict=False)]
    big = hh if variant == "bh1" else torch.expm1(hh)
    g, b = torch.expm1(hh) / hh - 1, []
    for j in range(1, p + 1):
        b.append(float(g * math.factorial(j) / big))
        g = g / hh - 1 / math.factorial(j + 1)
    matrix = torch.tensor([[r_k**j for r_k in r] for j in range(p)], dtype=torch.float64)
    b = torch.tensor(b, dtype=torch.float64)
    if new is None:
        rho = [0.5] if p == 2 else torch.linalg.solve(matrix[: p - 1, : p - 1], b[: p - 1]) if p > 2 else []
    else:
        rho, deltas = [0.5] if p == 1 else torch.linalg.solve(matrix, b), [*deltas, new - d0]
    return first(x, d0, t, s) - big * sum((w * delta for w, delta in zip(rho, deltas, strict=True)), 0 * x)


def test_phi_is_smooth_where_its_series_ends():
    z = torch.tensor([-3.0, -1.0001, -0.9999, -1e-9, 1e-9, 0.9999, 1.0001, 3.0], dtype=torch.float64)
    nodes = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    for k in (1, 2, 3, 4):  # phi_k(z) is the integral of e^((1 - u) z) u^(k - 1) / (k - 1)! over u in [0, 1]
        integral = (((1 - nodes) * z[:, None]).exp() * nodes ** (k - 1)).mean(1) / math.factorial(k - 1)
        assert torch.allclose(phi(k, z), integral, rtol=1e-6)


@pytest.mark.parametrize("process", [VP(), VE(), FlowMatching(), TrigFlow(0.5)], ids=lambda p: type(p).__name__)
def test_steps_in_native_time_lead_to_the_same_end(process):
    data, x = golden_line(), torch.tensor([[1.3], [-2.0], [4.0]], dtype=torch.float64)
    errors = []
    for n in (100, 200):
        levels = process.sigma(
            torch.linspace(*process.time(torch.tensor([3.0, 0.05]).double()).tolist(), n + 1, dtype=torch.float64)
        )
        *_, end = integrate(ode_field(data), x, levels, NativeTimeSolver(process, heun()))
        errors.append(float((end - data.flow(x, 3.0, 0.05)).abs().max()))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.2)


def test_euler_in_the_time_of_edm_is_eulers():
    assert_same(list(integrate(ode_field(DATA), X, GRID, NativeTimeSolver(EDM(), euler()))), walked("euler"))
