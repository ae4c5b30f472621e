"""The perceptron against formulas, and trained against a denoiser that is known exactly."""

import math

import pytest
import torch

from cmtool.backbones.mlp import SinusoidalEmbedding, mlp
from cmtool.core.denoiser import Denoiser, Preconditioning
from cmtool.errors import UsageError
from cmtool.options import registry
from cmtool.testing import check_backbone


@pytest.mark.parametrize(
    ("shape", "classes", "options"),
    [
        ((2,), 8, {}),
        ((2,), 0, {"depth": 1}),
        ((5,), 3, {"hidden_dim": 16, "dropout": 0.2}),
        ((1, 8, 8), 10, {"depth": 1}),
    ],
)
def test_mlp_keeps_the_contract_of_a_backbone(shape, classes, options):
    check_backbone(mlp, shape, classes, **options)


def test_a_new_mlp_is_the_zero_function():
    assert not mlp((2,), 3)(torch.randn(4, 2), torch.randn(4), torch.tensor([0, 1, 2, -1])).any()


def test_waves_are_low_and_geometric():
    c = torch.tensor([-1.7, 0.3])
    frequencies = [0.5 * 16 ** (k / 7) for k in range(8)]
    expected = [[math.cos(w * v) for w in frequencies] + [math.sin(w * v) for w in frequencies] for v in c.tolist()]
    torch.testing.assert_close(SinusoidalEmbedding()(c), torch.tensor(expected), atol=1e-5, rtol=0)


def test_the_number_of_weights_is_that_of_the_formula():
    w, depth, d, classes, waves = 32, 3, 2, 5, 16
    blocks = depth * (4 * w**2 + 4 * w)
    ends = waves * w + w + w**2 + w + (classes + 1) * w + d * w + w + w * d + d
    assert sum(p.numel() for p in mlp((d,), classes, hidden_dim=w, depth=depth).parameters()) == blocks + ends


def test_dropout_drops_in_training_alone():
    torch.manual_seed(0)
    net = mlp((2,), 0, dropout=0.5)
    torch.nn.init.normal_(net.leave.weight)
    x, c_noise = torch.randn(4, 2), torch.randn(4)
    assert not torch.equal(net(x, c_noise), net(x, c_noise))
    net.eval()
    assert torch.equal(net(x, c_noise), net(x, c_noise))


def test_a_label_that_is_no_class_is_an_error():
    with pytest.raises(IndexError):
        mlp((2,), 3)(torch.zeros(1, 2), torch.zeros(1), torch.tensor([4]))


@pytest.mark.parametrize(
    ("options", "must"),
    [({"hidden_dim": 0}, "at least 1"), ({"depth": 0}, "at least 1"), ({"dropout": 1.0}, "from 0 to below 1")],
)
def test_options_that_cannot_be_are_refused(options, must):
    with pytest.raises(UsageError, match=f"option '{next(iter(options))}' .* must be {must}"):
        registry.build("backbones", {"name": "mlp", **options}, (2,), 0)


def test_it_learns_the_denoiser_of_two_points_whose_signs_are_the_labels():
    """Data +m and -m: without a class ``D = m tanh(m . x / sigma^2)``, with one the point itself."""
    torch.manual_seed(0)
    m, generator = torch.tensor([0.6, -0.3]), torch.Generator().manual_seed(1)
    model = Denoiser(mlp((2,), 2, hidden_dim=32, depth=2), Preconditioning())
    steps = 400
    optimiser = torch.optim.Adam(model.parameters(), 5e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)

    def draw(n):
        label = torch.randint(0, 2, (n,), generator=generator)
        sigma = (torch.randn(n, generator=generator) - 0.7).exp()
        x_0 = (1.0 - 2.0 * label)[:, None] * m
        return x_0, x_0 + sigma[:, None] * torch.randn(n, 2, generator=generator), sigma, label

    for _ in range(steps):
        x_0, x, sigma, label = draw(256)
        unlabelled = torch.where(torch.rand(256, generator=generator) < 0.5, -1, label)
        weight = (sigma**2 + 0.25) / (0.5 * sigma) ** 2
        loss = (weight[:, None] * (model(x, sigma, unlabelled) - x_0).square()).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()

    x_0, x, sigma, label = draw(4000)
    exact = torch.tanh(x @ m / sigma**2)[:, None] * m
    with torch.no_grad():
        assert (model(x, sigma) - exact).square().mean().sqrt() < 0.04
        assert (model(x, sigma, label) - x_0).square().mean().sqrt() < 0.04
