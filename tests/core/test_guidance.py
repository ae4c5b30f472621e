"""Guided denoisers against densities that are known, inside their interval and outside, and what they cost."""

import copy

import pytest
import torch
from oracles import Gaussian, Mixture
from torch import Tensor, nn

from cmtool.backbones.mlp import mlp
from cmtool.core.denoiser import Denoiser, Preconditioning
from cmtool.core.guidance import EVERYWHERE, Guided, Unlabelled, cost
from cmtool.core.sampling.loops import CountNFE, last, probability_flow
from cmtool.core.sigma_schedules import append_zero, karras
from cmtool.core.solvers import heun
from cmtool.testing import wake

STD = 0.3
CLASSES = [Mixture([0.4, 0.6], [[-1.0, 0.0], [0.5, 1.0]], [[[0.04, 0.01], [0.01, 0.09]], [[0.2, 0.0], [0.0, 0.05]]])]
CLASSES += [Mixture([1.0], [[1.0, -0.5]], [[[0.1, -0.03], [-0.03, 0.06]]])]
SHARES = (0.3, 0.7)


def whole() -> Mixture:
    """The same data without the classes."""
    parts = [(share * w, part) for share, c in zip(SHARES, CLASSES, strict=True) for w, part in weighted(c)]
    return Mixture([w for w, _ in parts], [p.mean for _, p in parts], [p.covariance for _, p in parts])


def weighted(mixture: Mixture):
    return zip(mixture.log_weights.exp().tolist(), mixture.parts, strict=True)


class Conditional(nn.Module):
    """An oracle for each class, and one for label -1 or None; it remembers how many points it was asked about."""

    def __init__(self, classes, everything):
        super().__init__()
        self.classes, self.everything, self.asked = classes, everything, []

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        self.asked.append(len(x))
        labels = torch.full((len(x),), -1) if labels is None else labels
        answers = torch.stack([oracle(x, sigma) for oracle in (*self.classes, self.everything)])
        return answers[labels, torch.arange(len(x))]  # -1 is the last one


def mixtures() -> Conditional:
    return Conditional(CLASSES, whole())


def gaussians() -> Conditional:
    return Conditional([Gaussian([-1.0, 0.2], STD), Gaussian([0.7, 0.4], STD)], Gaussian([0.1, 0.0], STD))


def points(n: int = 12, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    x = scale * torch.randn(n, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return x, torch.arange(n) % 2


@pytest.mark.parametrize("sigma", [0.05, 0.7, 20.0])
@pytest.mark.parametrize("w", [0.0, 0.5, 2.0, 7.5])
def test_classifier_free_guidance_is_the_score_of_a_product_of_densities(w, sigma):
    """``grad log p(x|c)^w p(x)^(1-w)``, by differentiating the densities themselves."""
    x, labels = points(scale=sigma)
    model = mixtures()
    x.requires_grad_()
    conditional = torch.stack([c.log_density(x, sigma) for c in CLASSES])[labels, torch.arange(len(x))]
    (expected,) = torch.autograd.grad((w * conditional + (1 - w) * whole().log_density(x, sigma)).sum(), x)
    x = x.detach()
    made = Guided(model, Unlabelled(model), w)(x, torch.tensor(sigma, dtype=torch.float64), labels)
    torch.testing.assert_close((made - x) / sigma**2, expected, rtol=1e-9, atol=1e-9)


def test_between_gaussians_of_one_width_guidance_moves_the_mean():
    """``N(m_c, s)^w N(m, s)^(1-w)`` is ``N(m + w (m_c - m), s)`` at every level, and so is what the walk ends in."""
    model, w = gaussians(), 3.0
    means = torch.stack([model.everything.mean + w * (c.mean - model.everything.mean) for c in model.classes])
    guided, (x, labels) = Guided(model, Unlabelled(model), w), points(scale=80.0)
    exact = Gaussian(means[labels], STD)
    for sigma in torch.tensor([0.01, 1.0, 80.0], dtype=torch.float64):
        torch.testing.assert_close(guided(x, sigma, labels), exact.denoiser(x, sigma), rtol=1e-12, atol=1e-12)
    end = last(probability_flow(guided, x, append_zero(karras(200, 0.002, 80.0)), heun(), labels))
    torch.testing.assert_close(end, exact.flow(x, 80.0, 0.0), rtol=0, atol=1e-3)


def test_a_point_without_class_is_not_guided():
    model = mixtures()
    x, labels = points()
    labels[::3] = -1
    made = Guided(model, Unlabelled(model), 4.0)(x, torch.tensor(0.5), labels)
    assert torch.equal(made[::3], whole()(x[::3], 0.5))
    assert not torch.equal(made, model(x, torch.tensor(0.5), labels))


def test_autoguidance_leads_away_from_the_weaker_model():
    """A weak model of twice the width: the guided Gaussian is narrower, its precision ``w/a + (1 - w)/b``."""
    good, weak, w, sigma = Gaussian([0.3, -0.2], 0.2), Gaussian([0.3, -0.2], 0.4), 1.5, 0.3
    x, labels = points()
    made = Guided(good, weak, w)(x, torch.tensor(sigma, dtype=torch.float64), labels)
    precision = w / (0.2**2 + sigma**2) + (1 - w) / (0.4**2 + sigma**2)
    torch.testing.assert_close((made - x) / sigma**2, -precision * (x - good.mean))


def network() -> Denoiser:
    torch.manual_seed(0)
    return Denoiser(wake(mlp((2,), 2, hidden_dim=16, depth=1)), Preconditioning())


@pytest.mark.parametrize(("w", "interval"), [(1.0, EVERYWHERE), (3.0, (0.0, 0.4)), (3.0, (0.5, 9.0))])
def test_at_weight_one_and_outside_the_interval_it_is_the_plain_model_bit_for_bit(w, interval):
    model = network()
    x, labels = (value.float() if value.is_floating_point() else value for value in points())
    guided = Guided(model, None, w, interval)  # type: ignore[arg-type]  # the weak one is not even asked
    assert torch.equal(guided(x, torch.tensor(0.5), labels), model(x, torch.tensor(0.5), labels))


def test_rows_at_different_levels_are_guided_each_by_its_own():
    """Above the lower end, up to and with the upper one; the others are untouched and cost nothing."""
    model = mixtures()
    x, labels = points(6)
    sigma = torch.tensor([0.1, 0.2, 0.2001, 1.0, 5.0, 5.1], dtype=torch.float64)
    guided = Guided(model, Unlabelled(model), 2.0, (0.2, 5.0))
    model.asked.clear()
    made = guided(x, sigma, labels)
    assert model.asked == [6, 3]
    plain, free = model(x, sigma, labels), model(x, sigma, None)
    inside = torch.tensor([0, 0, 1, 1, 1, 0], dtype=torch.bool)
    assert torch.equal(made[~inside], plain[~inside])
    torch.testing.assert_close(made[inside], (2 * plain - free)[inside], rtol=1e-12, atol=1e-12)
    one_by_one = [guided(x[i : i + 1], sigma[i], labels[i : i + 1]) for i in range(6)]
    torch.testing.assert_close(torch.cat(one_by_one), made, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("interval", [EVERYWHERE, (0.2, 5.0), (100.0, 200.0)])
@pytest.mark.parametrize("w", [1.0, 2.0])
def test_what_is_counted_is_what_the_network_was_asked(w, interval):
    model = gaussians()
    guided = Guided(model, Unlabelled(model), w, interval)
    counted = CountNFE(guided, cost(guided))
    levels = append_zero(karras(18, 0.002, 80.0))
    x, labels = points(3)
    last(probability_flow(counted, x, levels, heun(), labels))
    asked = [*levels[:-2].tolist(), *levels[1:-1].tolist(), levels[-2].item()]  # Heun, and Euler's step to 0
    extra = sum(interval[0] < level <= interval[1] for level in asked) if w != 1 else 0
    assert counted.calls == len(model.asked) == len(asked) + extra


def test_a_copy_guides_by_itself():
    """The weak side of a copied module is the copy too, not the model it was made from."""
    model = network()
    guided = Guided(model, Unlabelled(model), 2.0)
    x, labels = (value.float() if value.is_floating_point() else value for value in points())
    before, twin = guided(x, torch.tensor(1.0), labels), copy.deepcopy(guided)
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    assert torch.equal(twin(x, torch.tensor(1.0), labels), before)
    assert len(list(guided.parameters())) == len(list(model.parameters()))


@pytest.mark.filterwarnings("ignore::FutureWarning")  # torch's own rules for forward derivatives use torch.jit
def test_forward_derivatives_pass_through():
    """``d(D_weak + w (D - D_weak))`` along a direction, of rows inside the interval and outside."""
    model = network().double()
    guided, (x, labels) = Guided(model, Unlabelled(model), 2.0, (0.2, 5.0)), points(4)
    sigma, v = torch.tensor([0.1, 0.3, 4.0, 9.0], dtype=torch.float64), torch.ones_like(x)
    slope = torch.func.jvp(lambda x: guided(x, sigma, labels), (x,), (v,))[1]
    step = 1e-6 * v
    expected = (guided(x + step, sigma, labels) - guided(x - step, sigma, labels)) / 2e-6
    torch.testing.assert_close(slope, expected, rtol=1e-6, atol=1e-8)
