"""Solvers that choose their own steps keep their tolerance, cost what they say and mix no rows."""

import pytest
import torch
from oracles import Mixture, golden_line
from scipy.integrate import RK45
from torch.overrides import TorchFunctionMode

from cmtool.core.denoiser import ode_field
from cmtool.core.sampling.loops import CountNFE, last, probability_flow
from cmtool.core.sigma_schedules import karras, log_uniform
from cmtool.core.solvers.adaptive import SCIPY_METHODS, DormandPrince, rk45, scipy
from cmtool.core.solvers.exponential import dpmpp_3m, dpmpp_3s, unipc
from cmtool.core.solvers.runge_kutta import rk4
from cmtool.errors import Diverged

T, S = torch.tensor(80.0).double(), torch.tensor(0.002).double()
X = torch.tensor([[-104.0], [-16.0], [8.0], [72.0], [160.0]], dtype=torch.float64)
PLANE = Mixture([0.6, 0.4], [[1.0, 0.5], [-1.2, 0.8]], [[[0.09, 0.05], [0.05, 0.08]], [[0.02, 0.0], [0.0, 0.25]]])


@pytest.mark.parametrize("tolerance", [1e-3, 1e-5, 1e-8])
def test_the_error_follows_the_tolerance(tolerance):
    """That of a walk is a few times that of its steps; ``scipy`` sums fewer of them."""
    data = golden_line()
    x = data.noisy(300, 80.0, torch.Generator().manual_seed(0))
    error = rk45(rtol=tolerance, atol=tolerance)(ode_field(data), x, T, S) - data.consistency(x, 80.0, 0.002)
    assert float(error.abs().mean()) < 8 * tolerance
    assert float(error.abs().max()) < 80 * tolerance
    error = scipy(rtol=tolerance, atol=tolerance)(ode_field(data), X, T, S) - data.consistency(X, 80.0, 0.002)
    assert float(error.abs().max()) < 20 * tolerance


@pytest.mark.parametrize(
    ("solver", "levels"),
    [
        (rk45(rtol=1e-7, atol=1e-7), karras(2)),
        (rk4(), karras(151)),
        (unipc(), log_uniform(200)),
        (dpmpp_3m(), karras(300)),
        (dpmpp_3s(), log_uniform(200)),
    ],
)
def test_an_image_is_encoded_and_decoded(solver, levels):
    x = PLANE.noisy(50, 0.002, torch.Generator().manual_seed(1))
    z = last(probability_flow(PLANE, x, levels.flip(0), solver))
    assert float(z.std()) == pytest.approx(80, rel=0.2)
    assert torch.allclose(last(probability_flow(PLANE, z, levels, solver)), x, rtol=0, atol=1e-4)


def test_ten_times_the_accuracy_costs_the_root_of_its_order():
    def calls(tolerance):
        model = CountNFE(golden_line())
        rk45(rtol=tolerance, atol=tolerance)(ode_field(model), X[:1], T, S)
        assert (model.calls - 1) % 6 == 0  # the first slope, and six more for each step taken or not
        return model.calls

    assert calls(1e-4) < 120
    assert calls(1e-10) / calls(1e-7) == pytest.approx(4, rel=0.25)  # 1000^(1/5)


def test_scipy_needs_about_as_many_evaluations():
    """The same formulae, with scipy's own rule for the first step and for how a step may grow."""
    count = 0

    def slope(sigma, x):
        nonlocal count
        count += 1
        return ode_field(golden_line())(torch.from_numpy(x)[None], torch.tensor(sigma).double())[0].numpy()

    theirs = RK45(slope, 80.0, X[0].numpy(), 0.002, rtol=1e-7, atol=1e-7)
    while theirs.status == "running":
        theirs.step()
    model = CountNFE(golden_line())
    x = DormandPrince(1e-7, 1e-7)(ode_field(model), X[:1], T, S)
    assert model.calls == pytest.approx(count, rel=0.2)
    assert x[0, 0].item() == pytest.approx(theirs.y[0], abs=1e-6)


@pytest.mark.parametrize("solver", [rk45(), scipy()])
def test_a_row_does_not_depend_on_the_others(solver):
    x = PLANE.noisy(7, 80.0, torch.Generator().manual_seed(0))
    together = solver(ode_field(PLANE), x, T, S)
    alone = torch.cat([solver(ode_field(PLANE), x[i : i + 1], T, S) for i in range(7)])
    assert torch.equal(together, alone)


class Reads(TorchFunctionMode):
    """Counts how often a number leaves the device."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        names = ("tolist", "item", "__bool__", "__float__", "__int__", "cpu", "numpy", "nonzero")
        self.count += getattr(function, "__name__", "") in names
        return function(*args, **(kwargs or {}))


def test_the_host_reads_once_a_step():
    calls = 0

    def field(x, sigma):
        nonlocal calls
        calls += 1
        return x / (1 + sigma[:, None])

    with Reads() as reads:
        rk45()(field, X, T, S)
    assert reads.count == (calls - 1) // 6


def test_every_method_of_scipy_by_its_name():
    data = golden_line()
    end = data.consistency(X[2:3], 5.0, 0.1)
    for method in SCIPY_METHODS:
        x = scipy(method=method, rtol=1e-5, atol=1e-5)(ode_field(data), X[2:3], torch.tensor(5.0), torch.tensor(0.1))
        assert torch.allclose(x, end, rtol=0, atol=2e-4), method


def test_a_model_that_answers_nonsense_is_told():
    with pytest.raises(Diverged, match="no step of rk45 is small enough"):
        rk45()(lambda x, sigma: x * float("nan"), X, T, S)
    with pytest.raises(Diverged, match="no step of rk45 is small enough"):
        rk45()(lambda x, sigma: x / (sigma[:, None] > 1), X, T, S)


def test_an_empty_step_stays():
    assert torch.equal(rk45()(ode_field(golden_line()), X, T, T), X)


def test_single_precision_is_enough_for_the_default():
    data = golden_line()
    x = rk45()(lambda x, sigma: ode_field(data)(x, sigma).float(), X.float(), T, S)
    assert x.dtype == torch.float32
    assert torch.allclose(x.double(), data.consistency(X, 80.0, 0.002), rtol=0, atol=3e-3)
