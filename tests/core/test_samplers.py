"""Whole walks: they cost what they say, and end at the data."""

import pytest
import torch
from oracles import Gaussian

from cmtool.core.denoiser import Preconditioning
from cmtool.core.named_processes import build_process, process_of
from cmtool.core.named_schedules import default_schedule, sigma_schedule
from cmtool.core.noise import STEP, Noise
from cmtool.core.process import EDM, VE, VP, FlowMatching, SubVP, TrigFlow
from cmtool.core.sampling.langevin import AnnealedLangevinSampler
from cmtool.core.sampling.loops import CountNFE, last
from cmtool.core.sampling.predictor_corrector import ReverseSDESampler
from cmtool.core.sampling.samplers import MultistepSampler, ODESampler
from cmtool.core.sampling.sde import NoPrediction
from cmtool.core.sigma_schedules import append_zero, karras
from cmtool.core.solvers import heun
from cmtool.core.solvers.runge_kutta import in_native_time
from cmtool.errors import UsageError
from cmtool.options import registry

DATA = Gaussian(torch.tensor([0.3, -0.4]), 0.5)


def ends(walk, n=4000, model=DATA):
    noise = Noise(range(n))
    return last(walk(model, walk.begin(noise, (2,)).double(), noise, None))


def test_all_of_them_are_there():
    assert registry.names("samplers") == [
        "euler-maruyama",
        "langevin",
        "predictor-corrector",
        "reverse-diffusion",
        "sde-ancestral",
    ]


@pytest.mark.parametrize("name", registry.names("processes"))
@pytest.mark.parametrize("solver", ["euler-maruyama", "reverse-diffusion", "sde-ancestral", "sde-ancestral wide"])
def test_every_reverse_walk_of_every_process_ends_at_the_data(name, solver):
    process = build_process(name, 0.01, 50.0)
    spec, *wide = solver.split()
    sampler = registry.build("samplers", {"name": spec, **({"wide": True} if wide else {})})
    levels = sigma_schedule(default_schedule(process), 301, 0.01, 50.0, process)
    walk = sampler.build_sampler(process, process.time(levels))
    model = CountNFE(DATA)
    x = ends(walk, model=model)
    assert model.calls == walk.nfe == 300
    torch.testing.assert_close(x.mean(0), DATA.mean, atol=0.04, rtol=0)
    torch.testing.assert_close(x.T.cov(), 0.25 * torch.eye(2, dtype=torch.float64), atol=0.03, rtol=0)


@pytest.mark.parametrize("corrector", ["none", "langevin", "ald"])
def test_corrections_cost_what_they_say(corrector):
    spec = {"name": "reverse-diffusion", "corrector": corrector, "corrections": 3}
    walk = registry.build("samplers", spec).build_sampler(VE(), torch.linspace(1, 0.1, 6, dtype=torch.float64))
    model = CountNFE(DATA)
    ends(walk, 4, model)
    assert model.calls == walk.nfe == (5 if corrector == "none" else 20)


def test_a_corrector_alone_costs_its_corrections_and_moves_to_the_data():
    spec = {"name": "predictor-corrector", "predictor": "none", "corrector": "ald", "snr": 0.3, "corrections": 4}
    walk = registry.build("samplers", spec).build_sampler(
        VE(0.01, 50.0), torch.linspace(1, 0.01, 61, dtype=torch.float64)
    )
    model = CountNFE(DATA)
    x = ends(walk, 1000, model)
    assert model.calls == walk.nfe == 240
    torch.testing.assert_close(x.mean(0), DATA.mean, atol=0.08, rtol=0)
    torch.testing.assert_close(x.std(0), torch.full((2,), 0.5, dtype=torch.float64), atol=0.08, rtol=0)


@pytest.mark.parametrize("predictor", ["reverse-diffusion", "euler-maruyama", "ancestral", "ancestral-wide"])
def test_predictors_by_name_are_those_of_their_solvers(predictor):
    names = {"ancestral": "sde-ancestral", "ancestral-wide": "sde-ancestral"}
    spec = {"name": names.get(predictor, predictor), **({"wide": True} if "wide" in predictor else {})}
    times = torch.linspace(1, 0.1, 5, dtype=torch.float64)
    alone = registry.build("samplers", spec).build_sampler(VE(), times)
    named = {"name": "predictor-corrector", "predictor": predictor, "corrector": "none"}
    assert torch.equal(ends(registry.build("samplers", named).build_sampler(VE(), times), 5), ends(alone, 5))


def test_langevin_counts_its_last_look():
    walk = AnnealedLangevinSampler(karras(4, 0.1, 5.0), 0.2, 7)
    model = CountNFE(DATA)
    ends(walk, 4, model)
    assert model.calls == walk.nfe == 29


def test_an_ode_in_native_time_ends_where_that_in_sigma_does():
    """On a fine grid, for each process whose time is smooth; with Heun the difference falls with the square."""
    levels = append_zero(karras(200, 0.002, 80.0))
    straight = ends(ODESampler(levels, heun()), 50)
    for name in ("edm", "ve", "vp", "subvp", "flow", "trigflow"):
        process = build_process(name, 0.002, 80.0)
        there = ends(ODESampler(levels, in_native_time(heun(), process)), 50)
        torch.testing.assert_close(there, straight, atol=2e-3, rtol=0)


def test_a_solver_that_is_made_for_sigma_refuses_another_time():
    for name in ("dpmpp-2m", "unipc", "midpoint", "dpmpp-3s"):
        with pytest.raises(UsageError, match="takes its steps in the noise level"):
            in_native_time(registry.build("solvers", name), VP())


def test_jumps_add_noise_above_the_floor_and_clip():
    """``x + sqrt(sigma^2 - floor^2) z`` before each jump but the first."""
    seen = []

    def model(x, sigma, labels=None):
        seen.append(x)
        return 3 * torch.ones_like(x)

    noise, levels = Noise([5]), torch.tensor([80.0, 0.5], dtype=torch.float64)
    for floor, clip, image in ((0.002, False, 3.0), (0.0, False, 3.0), (0.3, True, 1.0)):
        seen.clear()
        walk = MultistepSampler(levels, floor, clip)
        assert walk.nfe == 2
        z = noise.normal((2,), STEP + 1).double()
        assert float(last(walk(model, walk.begin(noise, (2,)).double(), noise, None)).max()) == image
        torch.testing.assert_close(seen[1], image + (0.5**2 - floor**2) ** 0.5 * z, atol=1e-12, rtol=0)


def test_levels_of_a_reverse_walk_are_those_of_its_times():
    times = torch.linspace(1, 0.1, 4, dtype=torch.float64)
    assert torch.equal(ReverseSDESampler(VP(), times, NoPrediction()).sigmas, VP().sigma(times))


@pytest.mark.parametrize(
    ("name", "kind"),
    [("edm", EDM), ("vp", VP), ("subvp", SubVP), ("ve", VE), ("flow", FlowMatching), ("trigflow", TrigFlow)],
)
def test_a_network_tells_its_process(name, kind):
    if name == "edm":
        assert isinstance(process_of(Preconditioning(), 0.002, 80.0), kind)
    else:
        assert type(process_of(Preconditioning.named(name), 0.002, 80.0)) is kind


@pytest.mark.parametrize(
    "name", sorted({*registry.names("schedules")} - {"iddpm"})
)  # which visits the rungs between the ends
def test_a_grid_goes_from_end_to_end(name):
    levels = sigma_schedule(name, 9, 0.01, 50.0, VE(0.01, 50.0))
    assert (levels.diff() < 0).all()
    torch.testing.assert_close(levels[[0, -1]], torch.tensor([50.0, 0.01], dtype=torch.float64), rtol=1e-9, atol=0)


def test_even_times_of_ve_are_even_in_the_logarithm():
    torch.testing.assert_close(
        sigma_schedule("time", 9, 0.01, 50.0, VE(0.01, 50.0)), sigma_schedule("log", 9, 0.01, 50.0, EDM())
    )
    torch.testing.assert_close(
        sigma_schedule("time", 9, 0.01, 50.0, EDM()), sigma_schedule("linear", 9, 0.01, 50.0, EDM())
    )
    vp = VP().time(sigma_schedule("vp", 9, 0.01, 50.0, EDM()))
    torch.testing.assert_close(vp.diff(), vp.diff().mean().expand(8))


def test_the_cosine_grid_is_even_in_the_angle():
    """``arctan(1/sigma) ~ i`` but for the shift of Nichol and Dhariwal."""
    levels = sigma_schedule("cosine", 9, 0.05, 20.0, EDM())
    angle = torch.arctan(levels)
    torch.testing.assert_close(angle.diff(), angle.diff().mean().expand(8), rtol=1e-2, atol=0)


def test_unknown_names_are_refused():
    with pytest.raises(UsageError, match="unknown process 'vvp'"):
        build_process("vvp", 0.002, 80.0)
    with pytest.raises(UsageError, match="unknown sigma schedule 'kar'"):
        sigma_schedule("kar", 9, 0.01, 50.0, EDM())
    for bad in ({"corrector": "mala"}, {"snr": 0.0, "corrector": "ald"}, {"noise": -1.0}):
        with pytest.raises(UsageError):
            registry.build("samplers", {"name": "euler-maruyama", **bad})
