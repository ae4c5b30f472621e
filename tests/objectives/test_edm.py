"""The exact denoiser is the least of the denoising loss, and what any other loses is known in closed form."""

import math

import numpy as np
import pytest
import torch
from expectations import gentle, quadrature
from oracles import Mixture
from scipy.stats import norm
from torch import Tensor, nn

from cmtool.core.denoiser import Denoiser, Preconditioning
from cmtool.objectives.edm import edm
from cmtool.objectives.objective import Batch

LEVELS = [0.01, 0.2, 1.0, 5.0, 40.0]
BENDS = {
    "constant": torch.ones_like,
    "linear": lambda x: x,
    "wave": lambda x: (1 + 2 * x).sin(),
}


class Wave(nn.Module):
    """A network without weights, which therefore runs in the precision of its input."""

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        return (3 * x).tanh() * c_noise[:, None]


def at_level(batch: Batch, sigma: float, mean: float = -1.2, std: float = 1.2) -> Batch:
    """The batch with the uniform number that the log-normal distribution maps to sigma."""
    u = torch.full_like(batch.u, norm.cdf((math.log(sigma) - mean) / std))
    return Batch(batch.x, batch.z, u)


@pytest.mark.parametrize("sigma", LEVELS)
def test_loss_of_the_exact_denoiser_is_one_at_every_level(sigma):
    """``E|D - x|^2 = s^2 sigma^2 / (s^2 + sigma^2)`` on N(0, s^2), and the weight at sigma_data = s is its inverse."""
    data = Mixture.line((1.0,), (0.0,), (0.3,))
    batch, weights = quadrature(data, 8)
    loss = edm(sigma_data=0.3).loss(data, at_level(batch, sigma), 0.0)
    assert (weights * loss).sum().item() == pytest.approx(1.0, rel=1e-9)


@pytest.mark.parametrize("bend", BENDS)
@pytest.mark.parametrize("sigma", [0.2, 1.0, 5.0])
def test_excess_of_any_other_denoiser_is_its_weighted_distance_to_the_exact_one(sigma, bend):
    """``L(D + d phi) - L(D) = d^2 w(sigma) E[phi(x_t)^2]``: no term of first order, so D is the least."""
    data, sigma_data, bump = gentle(), 0.5, BENDS[bend]
    batch, weights = quadrature(data, 40)
    batch, objective = at_level(batch, sigma), edm(sigma_data=sigma_data)

    def loss(d: float) -> float:
        def model(x: Tensor, level: Tensor, labels: Tensor | None = None) -> Tensor:
            return data(x, level) + d * bump(x / (1 + sigma))

        return (weights * objective.loss(model, batch, 0.0)).sum().item()

    square = (weights * bump((batch.x + sigma * batch.z) / (1 + sigma))[:, 0].square()).sum().item()
    weight = (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2
    for d in (-0.1, 0.01, 0.3):
        assert loss(d) - loss(0.0) == pytest.approx(d**2 * weight * square, rel=1e-6)


def test_loss_is_that_of_the_network_against_a_target_of_unit_variance():
    """``w |D - x|^2 = |F - (x - c_skip x_t) / c_out|^2``: the network sees errors of one size at every level."""
    generator = torch.Generator().manual_seed(0)
    x, z = (torch.randn(64, 3, generator=generator, dtype=torch.float64) for _ in "xz")
    u = torch.linspace(0.01, 0.99, 64, dtype=torch.float64)
    net, pre = Wave(), Preconditioning(0.5)
    sigma = torch.from_numpy(np.exp(norm.ppf(u, -1.2, 1.2)))
    c_skip, c_out, c_in, c_noise = pre(sigma)
    x_t = x + sigma[:, None] * z
    target = (x - c_skip[:, None] * x_t) / c_out[:, None]
    expected = (net(c_in[:, None] * x_t, c_noise) - target).square().mean(1)
    assert torch.allclose(edm().loss(Denoiser(net, pre), Batch(x, z, u), 0.0), expected, rtol=1e-10, atol=0)


def test_labels_reach_the_model():
    def model(x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        return labels[:, None].expand_as(x).to(x)

    batch = Batch(torch.tensor([[3.0], [1.0]]), torch.zeros(2, 1), torch.tensor([0.5, 0.5]), torch.tensor([3, 1]))
    assert edm().loss(model, batch, 0.0).tolist() == [0.0, 0.0]
