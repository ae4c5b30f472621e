"""Easy consistency tuning: its pairs, its three weights, and r = 0."""

import math

import pytest
import torch
from scipy.stats import lognorm
from torch import Tensor, nn

from cmtool.backbones.mlp import mlp
from cmtool.core.denoiser import Denoiser, Preconditioning
from cmtool.errors import UsageError
from cmtool.objectives.easy_consistency import ect
from cmtool.objectives.objective import Batch
from cmtool.options import registry

DATA = 0.5


def batch(n: int = 64) -> Batch:
    generator = torch.Generator().manual_seed(0)
    x, z = (torch.randn(n, 2, generator=generator) for _ in "xz")
    return Batch(x, z, (torch.arange(n, dtype=torch.float64) + 0.5) / n)


def pairs(progress: float, **options: float) -> tuple[Tensor, Tensor]:
    return ect(**options).pair(batch().u, progress)


def test_levels_are_log_normal_and_the_lower_one_approaches_stage_by_stage():
    largest = []
    for stage in range(8):
        t, r = pairs((stage + 0.5) / 8)
        assert t.tolist() == pytest.approx(lognorm(s=2.0, scale=math.exp(-1.1)).ppf(batch().u).tolist(), rel=1e-9)
        expected = t * (1 - (1 + 8 / (1 + (1.0 * t).exp())) / 2 ** (stage + 1))
        assert r.tolist() == pytest.approx(expected.clamp(min=0).tolist(), rel=1e-9)
        largest.append((1 - r / t).max().item())
    assert largest == pytest.approx([1, 1, 5 / 8, 5 / 16, 5 / 32, 5 / 64, 5 / 128, 5 / 256], rel=1e-2)


def test_the_options_reach_the_pair():
    t, r = pairs(0.0, P_mean=-0.8, P_std=1.6, q=256.0, k=4.0, b=0.5)
    assert t.tolist() == pytest.approx(lognorm(s=1.6, scale=math.exp(-0.8)).ppf(batch().u).tolist(), rel=1e-9)
    assert r.tolist() == pytest.approx((t * (1 - (1 + 4 / (1 + (0.5 * t).exp())) / 256)).tolist(), rel=1e-9)


@pytest.mark.parametrize(
    ("weight", "formula"),
    [
        ("gap", lambda t, r: 1 / (t - r)),
        ("variance", lambda t, r: (t**2 + DATA**2) / (t * DATA) ** 2),
        ("output", lambda t, r: ((t**2 + DATA**2) / (t * DATA) ** 2).sqrt()),
    ],
)
def test_weight(weight, formula):
    """The loss is the weight times the norm of the difference, here between ``x_t`` and ``x_r``: ``(t - r) |z|``."""
    b = batch()
    objective = ect(weight=weight, sigma_data=DATA, sigma_min=0.0)
    t, r = objective.pair(b.u, 0.9)
    loss = objective.loss(lambda x, sigma, labels: x, b, 0.9)
    assert torch.allclose(loss.double(), formula(t, r) * (t - r) * b.z.norm(dim=1), rtol=1e-2)


def test_the_metric_is_the_pseudo_huber_distance_of_the_whole_image():
    b, c = batch(), 0.06
    objective = ect(c=c, weight="variance", sigma_min=0.0)
    t, r = objective.pair(b.u, 0.9)
    squares = (t - r) ** 2 * b.z.double().square().sum(1)
    expected = (t**2 + DATA**2) / (t * DATA) ** 2 * ((squares + c**2).sqrt() - c)
    loss = objective.loss(lambda x, sigma, labels: x, Batch(b.x.double(), b.z.double(), b.u), 0.9)
    assert torch.allclose(loss, expected, rtol=1e-6)


@pytest.mark.parametrize("weight", ["gap", "variance", "output"])
@pytest.mark.parametrize("sigma_min", [0.0, 0.002])
def test_at_r_zero_the_target_is_the_image_and_nothing_is_nan(weight, sigma_min):
    """ln 0 is asked of no network: with anomaly detection on, a NaN anywhere in the backward pass would raise."""
    b = batch()
    objective = ect(weight=weight, sigma_min=sigma_min)
    torch.manual_seed(0)
    net = mlp((2,), 0, width=16, depth=1)
    nn.init.normal_(net.leave.weight)
    model = Denoiser(net, Preconditioning(sigma_min=sigma_min))
    t, r = objective.pair(b.u, 0.0)
    data = r == 0
    assert 20 < data.sum() < 64
    with torch.autograd.set_detect_anomaly(True, check_nan=True):
        loss = objective.loss(model, b, 0.0)
        loss.sum().backward()
    assert loss.isfinite().all()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    end = model(b.x + t[:, None].float() * b.z, t)
    expected = objective.weight(t, r) * (end - b.x).norm(dim=1)
    assert torch.allclose(loss[data].double(), expected[data], rtol=1e-5)


def test_the_gradient_stays_finite_where_model_and_target_agree():
    """c = 0 is a norm, which has a corner at 0."""
    scale = torch.ones((), requires_grad=True)
    b = Batch(torch.ones(4, 2), torch.zeros(4, 2), batch(4).u)
    loss = ect().loss(lambda x, sigma, labels: scale * x, b, 0.9)
    (slope,) = torch.autograd.grad(loss.sum(), scale)
    assert loss.tolist() == [0.0] * 4
    assert slope.item() == 0.0


def test_mistakes_are_named():
    with pytest.raises(UsageError, match="unknown weight 'gab'") as caught:
        ect(weight="gab")
    assert caught.value.hint == "did you mean 'gap'?"
    with pytest.raises(UsageError, match="must be at least 1, not 0"):
        registry.build("train_ct", {"name": "ect", "stages": 0})
