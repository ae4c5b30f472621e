"""Every way to train a score model: its loss is the paper's, its minimum the exact denoiser, and training finds it."""

import math

import numpy as np
import pytest
import torch
from oracles import Gaussian, golden_line

from cmtool.backbones.mlp import mlp
from cmtool.core.denoiser import Denoiser, Preconditioning
from cmtool.core.discrete_processes import ddpm_sigmas as ddpm_ladder
from cmtool.core.process import VE, VP, SubVP
from cmtool.errors import UsageError
from cmtool.objectives.edm import FourierLogVariance, edm2
from cmtool.objectives.noise_levels import weight_called
from cmtool.objectives.objective import Batch
from cmtool.options import registry
from cmtool.options.lr_schedule import learning_rate
from cmtool.training.ema import EMA
from cmtool.training.loop import LoopConfig, train
from cmtool.training.state import State

METHODS = [
    {"name": "edm"},
    {"name": "edm", "weight": "min-snr"},
    {"name": "edm", "weight": "soft-min-snr"},
    {"name": "edm2"},
    {"name": "trigflow"},
    {"name": "flow"},
    {"name": "flow", "times": "uniform"},
    {"name": "dsm", "process": "vp"},
    {"name": "dsm", "process": "subvp"},
    {"name": "dsm", "process": "ve"},
    {"name": "ddpm"},
    {"name": "ddpm", "schedule": "cosine"},
    {"name": "ncsn"},
    {"name": "ssm"},
]
LIKELIHOOD = [{"name": "dsm", "process": name, "weight": "likelihood"} for name in ("vp", "subvp", "ve")]
LEVELS = {"sigma_min": 0.002, "sigma_max": 80.0}


def called(spec):
    return " ".join(map(str, spec.values()))


def build(spec, sigma_data=0.5):
    return registry.build("train_score", spec, sigma_data=sigma_data, **LEVELS)


def test_no_method_is_left_out():
    assert {spec["name"] for spec in METHODS} == set(registry.names("train_score"))


def expectation(objective, data, model, u):
    """The mean of the loss over x_0 and z, exact for a loss that is a polynomial of degree 5 in them."""
    nodes, mass = (torch.from_numpy(v) for v in np.polynomial.hermite_e.hermegauss(3))
    x, z = (v.reshape(-1, 1) for v in torch.meshgrid(data.mean + data.std * nodes, nodes, indexing="ij"))
    batch = Batch(x, z, torch.full((9,), u, dtype=torch.float64), v=torch.ones_like(x))
    return (objective.loss(model, batch, 0.0) * torch.outer(mass, mass).flatten() / (2 * math.pi)).sum()


@pytest.mark.parametrize("u", [0.05, 0.4, 0.9])
@pytest.mark.parametrize("spec", METHODS + LIKELIHOOD, ids=called)
def test_the_exact_denoiser_is_the_minimum(spec, u):
    """Beside it by ``a (x - mean)`` the loss is ``w(sigma) a^2 (s^2 + sigma^2)`` higher, half of that when sliced."""
    data, objective = Gaussian(0.3, 0.7), build(spec)
    a = torch.zeros((), dtype=torch.float64, requires_grad=True)

    def beside(x, sigma, labels=None):
        return data(x, sigma) + a * (x - data.mean)

    at_it = expectation(objective, data, beside, u)
    (slope,) = torch.autograd.grad(at_it, a)
    with torch.no_grad():
        a += 0.01
    higher = expectation(objective, data, beside, u) - at_it
    sigma = objective.noise_levels(torch.tensor([u], dtype=torch.float64))
    expected = float(objective.weight(sigma) * 0.01**2 * (0.7**2 + sigma**2)) / (2 if spec["name"] == "ssm" else 1)
    assert abs(float(slope)) < 1e-6 * expected / 0.01
    assert higher.item() == pytest.approx(expected, rel=1e-6)


def rows(n=40):
    g = torch.Generator().manual_seed(3)
    x, z, v = (torch.randn(n, 5, generator=g, dtype=torch.float64) for _ in range(3))
    return Batch(0.5 * x, z, torch.linspace(0.01, 0.99, n, dtype=torch.float64), v=v)


class Net(torch.nn.Module):
    """Any function of what it is given; in double precision."""

    def forward(self, x, c_noise, labels=None):
        return (x * 1.3).sin() * c_noise[:, None].cos() + 0.2 * x.roll(1, 1)


def time_of(process, sigma):
    return process.time(sigma)[:, None]


def paper_noise(process):
    """``|F(x_t, t) - z|^2`` at ``x_t = s x_0 + std z``; what it is told comes with the preconditioning."""

    def loss(batch, objective):
        sigma = objective.noise_levels(batch.u)
        t, c = time_of(process, sigma), objective.requirements.preconditioning(sigma)[3]
        s, std = process.scale(t), process.scale(t) * process.sigma(t)
        return (Net()(s * batch.x + std * batch.z, c) - batch.z).square().mean(1)

    return loss


def paper_score(process):
    """``g^2 |score + z / std|^2`` with ``score = -F / std``, or ``F / std`` for VE."""

    def loss(batch, objective):
        sigma = objective.noise_levels(batch.u)
        t, c = time_of(process, sigma), objective.requirements.preconditioning(sigma)[3]
        s, std, sign = process.scale(t), process.scale(t) * process.sigma(t), 1 if isinstance(process, VE) else -1
        score = sign * Net()(s * batch.x + std * batch.z, c) / std
        return (process.diffusion(t) ** 2 * (score + batch.z / std).square()).mean(1)

    return loss


def paper_flow(batch, objective):
    t = (objective.noise_levels(batch.u) / (1 + objective.noise_levels(batch.u)))[:, None]
    return (Net()((1 - t) * batch.x + t * batch.z, 4 * t[:, 0]) - (batch.z - batch.x)).square().mean(1)


def paper_trigflow(batch, objective):
    t = (objective.noise_levels(batch.u) / 0.5).atan()[:, None]
    x_t = t.cos() * batch.x + t.sin() * 0.5 * batch.z
    return (0.5 * Net()(x_t / 0.5, t[:, 0]) - (t.cos() * 0.5 * batch.z - t.sin() * batch.x)).square().mean(1) / 0.5**2


def paper_ncsn(batch, objective):
    """``sigma^2 |score - (x_0 - x) / sigma^2|^2`` with ``score = F / sigma``."""
    sigma = objective.noise_levels(batch.u)[:, None]
    score = Net()(batch.x + sigma * batch.z, (sigma[:, 0] / 2).log() / 4) / sigma
    return (sigma * (score + batch.z / sigma)).square().mean(1)


@pytest.mark.parametrize(
    ("spec", "paper"),
    [
        ({"name": "dsm", "process": "vp"}, paper_noise(VP())),
        ({"name": "dsm", "process": "subvp"}, paper_noise(SubVP())),
        ({"name": "dsm", "process": "vp", "beta_min": 0.2, "beta_max": 15}, paper_noise(VP(0.2, 15.0))),
        ({"name": "dsm", "process": "subvp", "beta_max": 15, "weight": "likelihood"}, paper_score(SubVP(0.1, 15.0))),
        ({"name": "ddpm"}, paper_noise(VP())),  # any process of unit variance has these x_t
        ({"name": "dsm", "process": "vp", "weight": "likelihood"}, paper_score(VP())),
        ({"name": "dsm", "process": "subvp", "weight": "likelihood"}, paper_score(SubVP())),
        ({"name": "dsm", "process": "ve", "weight": "likelihood"}, paper_score(VE(0.002, 80.0))),
        ({"name": "flow"}, paper_flow),
        ({"name": "trigflow"}, paper_trigflow),
        ({"name": "ncsn"}, paper_ncsn),
    ],
    ids=lambda given: called(given) if isinstance(given, dict) else "",
)
def test_the_loss_is_the_one_of_the_paper(spec, paper):
    batch, objective = rows(), build(spec)
    model = Denoiser(Net(), objective.requirements.preconditioning)
    assert torch.allclose(objective.loss(model, batch, 0.0), paper(batch, objective), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("directions", ["rademacher", "gaussian"])
def test_slices_are_those_of_the_whole_jacobian(directions):
    batch, objective = rows(6), build({"name": "ssm", "directions": directions, "weight": "noise"})
    model, sigma = Denoiser(Net(), objective.requirements.preconditioning), objective.noise_levels(batch.u)
    v = batch.v.sign() if directions == "rademacher" else batch.v
    loss = objective.loss(model, batch, 0.0)
    for i in range(6):

        def score(x, i=i):
            return (model(x[None], sigma[i : i + 1])[0] - x) / sigma[i] ** 2

        x = batch.x[i] + sigma[i] * batch.z[i]
        jacobian = torch.autograd.functional.jacobian(score, x)
        expected = sigma[i] ** 2 * (score(x).square().sum() / 2 + v[i] @ jacobian @ v[i]) / 5
        assert torch.allclose(loss[i], expected, rtol=1e-9)


def test_weights_are_their_formulas():
    sigma = torch.tensor([0.1, 0.5, 4.0], dtype=torch.float64)
    of_f = {"soft-min-snr": (sigma * 0.5) ** 2 / (sigma**2 + 0.25) ** 2, "noise": 0.25 / (sigma**2 + 0.25)}
    for name, factor in of_f.items():  # as Crowson et al. write them, on the error of EDM's network
        assert torch.allclose(weight_called(name)(sigma), factor * weight_called("edm")(sigma), rtol=1e-13)
    assert weight_called("min-snr", gamma=5.0)(sigma).tolist() == pytest.approx([5.0, 4.0, 1 / 16])


def test_the_ladder_of_ddpm_is_recorded():
    """``abar`` of 1000 linear steps ends at 4.0358e-5, and Nichol and Dhariwal's formula holds for the cosine."""
    linear, cosine = (1 / (1 + ddpm_ladder(1000, name) ** 2) for name in ("linear", "cosine"))
    beta = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    assert torch.allclose(linear, (1 - beta).cumprod(0), rtol=1e-10)
    assert linear[-1].item() == pytest.approx(4.0358e-5, rel=1e-4)
    f = (torch.tensor([0.25, 0.5, 0.75, 0.0], dtype=torch.float64).add(0.008) / 1.008 * math.pi / 2).cos() ** 2
    assert torch.allclose(cosine[[249, 499, 749]], f[:3] / f[3], rtol=1e-9)


def test_the_uncertainty_that_is_learned_is_the_error_at_each_level():
    """``e^u`` becomes ``w s^2 sigma^2 / (s^2 + sigma^2)``, the weighted error of the exact denoiser."""
    data, objective = Gaussian(0.0, 1.5), edm2(P_mean=-0.5, P_std=1.0)
    assert len(objective.trained()) == 2
    optimiser, g = torch.optim.Adam(objective.trained(), 0.02), torch.Generator().manual_seed(0)
    for step in range(300):
        x, z = (torch.randn(512, 8, generator=g, dtype=torch.float64) for _ in range(2))
        batch = Batch(1.5 * x, z, (torch.arange(512, dtype=torch.float64) + 0.5) / 512)
        optimiser.zero_grad()
        objective.loss(data, batch, 0.0).mean().backward()
        optimiser.param_groups[0]["lr"] = 0.02 * (1 - step / 300)
        optimiser.step()
    sigma = torch.tensor([0.2, 0.6, 1.5], dtype=torch.float64)
    error = objective.weight(sigma) * 1.5**2 * sigma**2 / (1.5**2 + sigma**2)
    assert torch.allclose(objective.head(sigma.log() / 4).double(), error.log(), atol=0.05)


def test_the_published_head_is_the_one_of_the_formula():
    """``u = sqrt(2) sum w_i cos(f_i c + p_i) / |w|``, the same waves in every run."""
    head, again = FourierLogVariance(), FourierLogVariance()
    assert all(map(torch.equal, head.state_dict().values(), again.state_dict().values()))
    c = torch.tensor([-1.2, 0.4], dtype=torch.float64)
    f, p, w = (value.double().numpy().ravel() for value in head.state_dict().values())
    expected = [math.sqrt(2) * (w * np.cos(f * v + p)).sum() / np.linalg.norm(w) for v in c.tolist()]
    assert head(c).detach().numpy() == pytest.approx(expected, abs=2e-3)
    with torch.no_grad():
        head.linear.weight *= 30
    assert head(c).detach().numpy() == pytest.approx(expected, abs=2e-3)
    head.linear.project()
    assert head.linear.weight.square().mean().item() == pytest.approx(1, abs=3e-4)


def test_a_head_that_is_not_there_is_refused():
    with pytest.raises(UsageError, match="head"):
        edm2(head="cosines")


def fitted(spec, steps=300, size=256):
    """A small network trained by ``spec`` on the one-dimensional mixture, its weights averaged."""
    data, g = golden_line(), torch.Generator().manual_seed(1)
    objective = build(spec, sigma_data=0.78)
    torch.manual_seed(0)
    model = Denoiser(mlp((1,), 0, hidden_dim=64, depth=2), objective.requirements.preconditioning)

    def batches():
        while True:
            z, v = torch.randn(2, size, 1, generator=g)
            u = torch.rand(size, generator=g, dtype=torch.float64)
            yield Batch(data.sample(size, g).float(), z, u, v=v)

    learner = torch.optim.Adam([*model.parameters(), *objective.trained()], 4e-3, betas=(0.9, 0.99))
    state, total = State(model, objective, learner, EMA(model, 20 * size)), steps * size
    rate = lambda n: learning_rate(4e-3, n, total, 10 * size, "cosine")  # noqa: E731
    for _ in train(state, batches(), total, rate, LoopConfig(clip=10.0)):
        pass
    assert state.skipped == 0
    return state.average.model


# VE networks see x as it is, up to 80 and more, and learn slowly; flow matching seldom visits the lowest level below.
LONGER = {"dsm ve": 1200, "ncsn": 1200, "flow": 600}


@pytest.mark.parametrize("spec", METHODS, ids=called)
def test_a_small_network_learns_the_denoiser_of_a_mixture(spec):
    """What is left of the best straight line's error, where the denoiser of the mixture is no line."""
    data, model = golden_line(), fitted(spec, LONGER.get(called(spec), 300))
    for level in (0.1, 0.3, 1.0):
        x = data.noisy(2000, level, torch.Generator().manual_seed(2))
        sigma = torch.full((2000,), level, dtype=torch.float64)
        line = data.mean + data.covariance[0] / (data.covariance[0] + level**2) * (x - data.mean)
        with torch.no_grad():
            error, of_line = ((d - data(x, sigma)).square().mean() for d in (model(x, sigma), line))
        assert error < 0.35 * of_line


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"name": "dsm", "process": "v"}, "process"),
        ({"name": "dsm", "weight": "nois"}, "weight"),
        ({"name": "edm", "weight": "likelihood"}, "weight"),
        ({"name": "ddpm", "schedule": "linea"}, "schedule"),
        ({"name": "ddpm", "steps": 10}, "more than 20 steps"),
        ({"name": "ncsn", "steps": 1}, "at least 2"),
        ({"name": "flow", "times": "normal"}, "option 'times'"),
        ({"name": "ssm", "directions": "x"}, "option 'directions'"),
        ({"name": "edm", "preconditioning": "vpp"}, "preconditioning"),
    ],
    ids=lambda given: called(given) if isinstance(given, dict) else "",
)
def test_what_there_is_not_is_refused(spec, says):
    with pytest.raises(UsageError, match=says):
        build(spec)


@pytest.mark.parametrize("name", ["edm", "trigflow", "vp", "subvp", "ddpm", "ve", "flow"])
def test_every_parameterisation_can_become_a_consistency_model(name):
    """A teacher of any kind can be distilled: with sigma_min its student leaves the boundary as it is."""
    pre = Preconditioning.named(name)
    student = Denoiser(Net(), Preconditioning(pre.sigma_data, 0.002, pre.time, pre.sign, pre.form, pre.time_scale))
    x = torch.linspace(-2, 2, 10, dtype=torch.float64).reshape(2, 5)
    assert torch.equal(student(x, torch.full((2,), 0.002, dtype=torch.float64)), x)
