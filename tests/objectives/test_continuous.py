"""Continuous-time consistency: exact models stand still, tangents and gradients are the formulas, dropout is shared."""

import itertools
import math

import pytest
import torch
from expectations import EPS, quadrature
from oracles import AnisotropicGaussian, Gaussian, Mixture, derivative, golden_line
from torch import Tensor

from cmtool.backbones.mlp import mlp
from cmtool.core.denoiser import Denoiser, Preconditioning, broadcast_like
from cmtool.core.jvp import central_difference
from cmtool.errors import UsageError
from cmtool.objectives.consistency import Consistency
from cmtool.objectives.continuous_2023 import ccd, cct
from cmtool.objectives.distances import l1, l2
from cmtool.objectives.objective import Batch, Requirements
from cmtool.objectives.scm import normalize_tangent, scd, scm_tangent, sct, trig_of_sigma, velocity_output
from cmtool.options import registry
from cmtool.training.ema import EMA
from cmtool.training.loop import LoopConfig, train
from cmtool.training.state import State

ROUND = Gaussian(torch.tensor([0.3, -0.2], dtype=torch.float64), 0.4)
TILTED = AnisotropicGaussian([0.3, -0.2, 0.5], [[0.3, 0.1, 0.0], [0.1, 0.2, -0.05], [0.0, -0.05, 0.4]])
EVEN = (torch.arange(40, dtype=torch.float64) + 0.5) / 40


def spread(data, u: Tensor = EVEN) -> Batch:
    generator = torch.Generator().manual_seed(0)
    x = data.sample(len(u), generator)
    return Batch(x, torch.randn(x.shape, generator=generator, dtype=torch.float64), u)


def network(d: int = 3, sigma_min: float = 0.0, name: str = "edm", dropout: float = 0.0) -> Denoiser:
    """A network in float64 whose weights are not the zeros that it starts from."""
    generator = torch.Generator().manual_seed(1)
    net = mlp((d,), 0, hidden_dim=16, depth=1, dropout=dropout).double()
    for p in net.parameters():
        p.data = 0.3 * torch.randn(p.shape, generator=generator, dtype=torch.float64)
    pre = Preconditioning.named(name)
    return Denoiser(net, Preconditioning(pre.sigma_data, sigma_min, pre.time, pre.sign, pre.form, pre.time_scale))


def level(v: Tensor) -> Tensor:
    """Where a Karras grid is at the share v of its way up."""
    return (EPS ** (1 / 7) + v * (80 ** (1 / 7) - EPS ** (1 / 7))) ** 7


def gradient(loss: Tensor, model: Denoiser) -> Tensor:
    slopes = torch.autograd.grad(loss, list(model.parameters()), materialize_grads=True, retain_graph=True)
    return torch.cat([slope.flatten() for slope in slopes])


@pytest.mark.parametrize("data", [ROUND, TILTED], ids=["round", "tilted"])
def test_the_tangent_of_an_exact_consistency_function_is_zero(data):
    """Any slip of a sign, of sigma_data or of the direction of the derivative would show."""
    objective, batch = scd(data), spread(data)
    tangent = objective.tangent(data.student(0.0), batch)
    assert scm_tangent(tangent, 1.0, 0.5).abs().max() < 1e-10
    assert scm_tangent(tangent, 0.0, 0.5).abs().max() > 0.01
    assert objective.loss(data.student(0.0), batch, 1.0).max() < 1e-18
    for metric in ("l1", "l2"):
        assert ccd(data, metric=metric, stop=False).loss(data.student(EPS), batch, 0.0).max() < 1e-10


def test_the_same_on_a_mixture_by_differences():
    """Its consistency function is found by bisection, which forward mode cannot pass."""
    data = golden_line()
    objective = scd(data)
    objective.derivative = central_difference(1e-4)
    tangent = objective.tangent(data.student(0.0), spread(data))
    assert scm_tangent(tangent, 1.0, 0.5).abs().max() < 1e-6


def test_the_velocity_of_an_exact_denoiser_is_that_of_the_exact_circle():
    """``x_t(t) = mean cos t + a(t) w`` with ``a^2 = s^2 cos^2 t + sigma_data^2 sin^2 t``."""
    t = torch.linspace(1e-3, math.pi / 2 - 1e-3, 50, dtype=torch.float64)
    w = torch.randn(50, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def circle(t: Tensor) -> Tensor:
        a = (ROUND.std**2 * t.cos() ** 2 + 0.25 * t.sin() ** 2).sqrt()
        return ROUND.mean * t.cos()[:, None] + a[:, None] * w

    jacobian = torch.func.jvp(circle, (t,), (torch.ones_like(t),))
    F = velocity_output(0.5)(ROUND, jacobian[0] / t.cos()[:, None], 0.5 * t.tan(), None)
    assert (0.5 * F - jacobian[1]).abs().max() < 1e-10


@pytest.mark.parametrize("name", ["edm", "trigflow", "vp", "ddpm", "ve", "flow"])
def test_the_velocity_is_found_without_dividing_what_the_network_says(name):
    model, sigma = network(name=name), torch.logspace(-2, 1.5, 12, dtype=torch.float64)
    x = torch.randn(12, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * (1 + sigma[:, None])
    through = velocity_output(0.5)(model, x, sigma, None)
    divided = velocity_output(0.5)(lambda *given: model(*given), x, sigma, None)
    assert torch.allclose(through, divided, rtol=1e-8, atol=1e-8)
    if name in ("edm", "trigflow"):
        sign = -model.preconditioning.sign
        assert torch.allclose(through, sign * model.raw_output(x, sigma), rtol=1e-12, atol=1e-12)


def test_the_algebra_keeps_its_digits_at_the_lowest_levels():
    """In float32 the wrapper divides rounding by sin t; the network's own output does not."""
    model, sigma = network().float(), torch.full((40,), 1e-4, dtype=torch.float64)
    x = spread(TILTED).x.float()
    exact = velocity_output(0.5)(network(), x.double(), sigma, None)
    errors = [
        (velocity_output(0.5)(m, x, sigma, None) - exact).abs().max().item()
        for m in (model, lambda *given: model(*given))
    ]
    assert errors[0] < 1e-5 < 1e-4 < errors[1]


@pytest.mark.parametrize("r", [0.0, 0.4, 1.0])
def test_the_pull_is_the_formula_of_the_paper(r):
    """In the paper's own coordinates, with dF/dt by differences along x_t(t)."""
    model, batch = network(), spread(TILTED)
    tangent = sct().tangent(model, batch)
    t = (tangent.sigma / 0.5).atan()
    cos, sin, z = t.cos()[:, None], t.sin()[:, None], 0.5 * batch.z
    x_t, dx_t = cos * batch.x + sin * z, cos * z - sin * batch.x

    def F(x_t: Tensor, t: Tensor) -> Tensor:
        return -model.net(x_t / 0.5, (0.5 * t.tan()).log() / 4)

    h = 1e-5 * t.sin() * t.cos()
    dF = (F(x_t + h[:, None] * dx_t, t + h) - F(x_t - h[:, None] * dx_t, t - h)) / (2 * h[:, None])
    g = -(cos**2) * (0.5 * F(x_t, t) - dx_t) - r * cos * sin * (x_t + 0.5 * dF)
    assert torch.allclose(tangent.y, F(x_t, t), atol=1e-12)
    assert torch.allclose(scm_tangent(tangent, r, 0.5), g, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(("norm", "c", "prior"), [("rms", 0.1, 0.0), ("l2", 0.01, 0.0), ("rms", 0.1, 1.0)])
def test_the_gradient_of_the_simplified_loss_is_minus_the_pull(norm, c, prior):
    model, batch, objective = network(), spread(TILTED), sct(norm=norm, c=c, prior=prior)
    tangent = objective.tangent(model, batch)
    g = scm_tangent(tangent, 1.0, 0.5)
    length = g.norm(dim=1, keepdim=True) / (3**0.5 if norm == "rms" else 1)
    product = -2 / 3 * (tangent.online * g / (length + c) / broadcast_like(tangent.sigma, g) ** prior).sum()
    slope = gradient(objective.loss(model, batch, 1.0).sum(), model)
    assert torch.allclose(slope, gradient(product, model), rtol=1e-9, atol=1e-12)


def test_without_a_teacher_the_pull_vanishes_on_average():
    """Not image by image: ``E[z | x]`` is the slope, and g is linear in z."""
    line = Mixture.line((1.0,), (0.2,), (0.5,))
    batch, weights = quadrature(line, 6)
    tangent = sct(P_mean=0.0).tangent(Gaussian(torch.tensor([0.2], dtype=torch.float64), 0.5).student(0.0), batch)
    g = scm_tangent(tangent, 1.0, 0.5)
    assert g.abs().max() > 0.1
    for power in (0, 1, 2, 3):
        assert abs((weights * (g * tangent.x**power).squeeze(1)).sum()) < 1e-12


def test_normalisation():
    g = torch.tensor([[3.0, 4.0], [0.0, 0.0], [math.nan, 1.0], [math.inf, 1.0]])
    assert torch.allclose(normalize_tangent(g, 0.1, "l2"), torch.tensor([[3 / 5.1, 4 / 5.1], [0, 0], [0, 0], [0, 0]]))
    assert normalize_tangent(g, 0.1, "rms")[0].tolist() == pytest.approx([v / (5 / math.sqrt(2) + 0.1) for v in (3, 4)])
    assert torch.equal(normalize_tangent(g[:1].half() * 1e4, 0.0, "l2"), torch.tensor([[0.6, 0.8]]))


def test_an_image_without_a_tangent_teaches_nothing_and_shows():
    model, batch, objective = network(), spread(TILTED), sct()
    exact = objective.derivative

    def broken(*given):
        y, dy = exact(*given)
        return y, torch.where(torch.arange(len(dy))[:, None] == 3, math.nan, dy)

    others = [i for i in range(40) if i != 3]
    expected = gradient(objective.loss(model, batch, 1.0)[others].sum(), model)
    objective.derivative = broken
    loss = objective.loss(model, batch, 1.0)
    assert loss.isnan().nonzero().flatten().tolist() == [3]
    assert torch.allclose(gradient(loss.sum(), model), expected, rtol=1e-9, atol=1e-12)


def test_r_grows_over_its_share_of_the_run():
    model, batch = network(), spread(TILTED)
    objective = sct(warmup=0.2, c=0.1)
    tangent = objective.tangent(model, batch)
    for progress, r in ((0.0, 0.0), (0.05, 0.25), (0.2, 1.0), (0.9, 1.0)):
        expected = normalize_tangent(scm_tangent(tangent, r, 0.5), 0.1, "rms").square().mean(1)
        assert torch.allclose(objective.loss(model, batch, progress), expected)
    assert torch.allclose(sct(warmup=0.0).loss(model, batch, 0.0), objective.loss(model, batch, 1.0))


def test_the_weight_is_learned_beside_the_model():
    model, batch = network(), spread(TILTED)
    objective = sct(adaptive=True, warmup=0.0).double()
    error = sct(warmup=0.0).loss(model, batch, 1.0)
    assert torch.allclose(objective.loss(model, batch, 1.0), error)
    objective.trained()[1].data.fill_(0.7)
    assert torch.allclose(objective.loss(model, batch, 1.0), error * math.exp(-0.7) + 0.7)
    assert not sct().trained()


@pytest.mark.parametrize("tangent", ["jvp", "difference"])
@pytest.mark.parametrize("method", [sct, cct])
def test_the_passes_drop_the_same_units(method, tangent):
    """With the pull scaled to nothing, y is compared with itself."""
    objective = method(tangent=tangent)
    objective.error = lambda tangent, progress: l2(tangent.online, tangent.y)
    model = network(sigma_min=objective.requirements.sigma_min, dropout=0.5).train()
    assert objective.loss(model, spread(TILTED), 0.5).max() < 1e-25
    loose = model(spread(TILTED).x, EVEN) - model(spread(TILTED).x, EVEN)
    assert loose.abs().max() > 0.01


@pytest.mark.parametrize("method", [lambda: sct(adaptive=True), cct, lambda: ccd(ROUND, stop=False)])
def test_threads_change_no_bit_of_training(method):
    def weights(threads: int) -> Tensor:
        model, objective = network(d=2, sigma_min=EPS).float(), method()
        learner = torch.optim.Adam([*model.parameters(), *objective.trained()], 1e-3)
        state, batch = State(model, objective, learner, EMA(model, 0)), spread(ROUND)
        batch = Batch(batch.x.float(), batch.z.float(), batch.u)
        for report in train(state, itertools.repeat(batch), 160, lambda n: 1e-3, LoopConfig(micro=5, threads=threads)):
            assert report.finite
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    assert torch.equal(weights(1), weights(4))


def test_differences_are_nearly_the_tangent():
    model, batch = network(), spread(TILTED)
    exact, near = (sct(tangent=name).tangent(model, batch).dy for name in ("jvp", "difference"))
    assert torch.allclose(exact, near, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("metric", "power"), [("l2", 2), ("l1", 1)])
def test_full_losses_are_the_limit_of_distillation_on_finer_grids(metric, power):
    """``(N - 1)^p`` times the loss of a pair of neighbours, for a model that does not stand still."""
    model, batch, n = network(sigma_min=EPS), spread(TILTED), 4000
    pairwise = Consistency(
        pair=lambda u, progress: (level(u + 0.5 / (n - 1)), level(u - 0.5 / (n - 1))),
        previous_point=lambda x_t, batch, t, r: TILTED.flow(x_t, t, r),
        metric={"l1": l1, "l2": l2}[metric],
        requirements=Requirements("consistency"),
    )
    above = level(EVEN + 0.5 / (n - 1))
    x = TILTED.flow(batch.x + broadcast_like(level(EVEN), batch.x) * batch.z, level(EVEN), above)
    pair = Batch(x - broadcast_like(above, x) * batch.z, batch.z, EVEN)
    full = ccd(TILTED, metric=metric, stop=False, clock="grid").loss(model, batch, 0.0)
    assert torch.allclose(pairwise.loss(model, pair, 0.0) * (n - 1) ** power, full, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("clock", ["grid", "time"])
@pytest.mark.parametrize("metric", ["l1", "l2"])
def test_stopped_losses_have_the_gradient_of_the_product(metric, clock):
    """``f . sg(H df)`` with H = 2 for l2, and the sign of df for l1."""
    model, batch = network(sigma_min=EPS), spread(TILTED)
    objective = cct(metric=metric, clock=clock)
    tangent = objective.tangent(model, batch)
    pace = 1 / tangent.sigma if clock == "time" else derivative(level, batch.u)[1] / tangent.sigma
    df = tangent.dy * pace[:, None]
    product = (tangent.online * (2 * df if metric == "l2" else df.sign())).mean(1).sum()
    slope = gradient(objective.loss(model, batch, 0.0).sum(), model)
    assert torch.allclose(slope, gradient(product, model), rtol=1e-9, atol=1e-12)


def test_without_a_teacher_the_stopped_gradient_is_that_of_distillation_on_average():
    """For a Gaussian and l2: the expectation over z given x, by quadrature."""
    batch, weights = quadrature(Mixture.line((1.0,), (0.2,), (0.5,)), 40)
    teacher = Gaussian(torch.tensor([0.2], dtype=torch.float64), 0.5)
    model = network(d=1, sigma_min=EPS)
    both = [gradient((weights * method.loss(model, batch, 0.0)).sum(), model) for method in (cct(), ccd(teacher))]
    assert torch.allclose(*both, rtol=1e-5, atol=1e-6)
    full = gradient((weights * ccd(teacher, stop=False).loss(model, batch, 0.0)).sum(), model)
    assert not torch.allclose(full, both[0], rtol=0.1)


def test_boundaries_and_what_the_network_predicts():
    needs = [method.requirements for method in (sct(), scd(ROUND), cct(), ccd(ROUND))]
    assert [need.sigma_min for need in needs] == [0.0, 0.0, EPS, EPS]
    assert sct(sigma_data=0.3).requirements.preconditioning == Preconditioning.trigflow(0.3)
    assert {need.kind for need in needs} == {"consistency"}
    cos, sin = trig_of_sigma(torch.tensor([0.0, 0.5, 80.0], dtype=torch.float64), 0.5)
    assert cos.tolist() == pytest.approx([1, math.sqrt(0.5), math.cos(math.atan(160))], rel=1e-12)
    assert (cos**2 + sin**2).tolist() == pytest.approx([1, 1, 1], rel=1e-14)


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: sct(norm="max"), "norm"),
        (lambda: sct(tangent="forward"), "tangent"),
        (lambda: registry.build("train_ct", {"name": "sct", "warmup": -1.0}), "warmup"),
        (lambda: cct(metric="lpips"), "metric"),
        (lambda: cct(clock="sun"), "clock"),
    ],
)
def test_what_there_is_not_is_refused(build, says):
    with pytest.raises(UsageError, match=says):
        build()
