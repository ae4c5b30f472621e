"""Networks as they were published: whatever they predict and are told, behind the wrapper is the exact denoiser."""

import math

import pytest
import torch
from oracles import Gaussian
from torch import Tensor, nn

from cmtool.core.denoiser import Denoiser, Preconditioning, broadcast_like
from cmtool.core.discrete_processes import ddpm_sigmas, nearest_step

SPREAD = 0.7
DATA = Gaussian(0.0, SPREAD)
SIGMA = torch.tensor([0.02, 0.3, 1.0, 7.0, 30.0], dtype=torch.float64)


class Published(nn.Module):
    """The noise in ``x_t = a x_0 + b z`` of Gaussian data, from time or step; twice the channels if ``learned``."""

    def __init__(self, coefficients, learned: bool = False):
        super().__init__()
        self.coefficients, self.learned = coefficients, learned

    def forward(self, x: Tensor, told: Tensor, labels: Tensor | None = None) -> Tensor:
        a, b = (broadcast_like(value, x) for value in self.coefficients(told))
        noise = x * b / (a**2 * SPREAD**2 + b**2)
        return torch.cat([noise, torch.full_like(noise, 9.0)], 1) if self.learned else noise


def vp(told: Tensor) -> tuple[Tensor, Tensor]:
    """Song et al. 2021, eq. 33, of a time in thousandths."""
    t = told / 999
    log_a = -(19.9 * t**2 / 4 + 0.1 * t / 2)
    return log_a.exp(), (-torch.expm1(2 * log_a)).sqrt()


def subvp(told: Tensor) -> tuple[Tensor, Tensor]:
    a, b = vp(told)
    return a, b**2


def abar(schedule: str) -> Tensor:
    """``prod (1 - beta)`` of Ho et al. 2020 and of Nichol and Dhariwal 2021, step by step."""
    if schedule == "linear":
        betas = [1e-4 + (0.02 - 1e-4) * i / 999 for i in range(1000)]
    else:
        f = [math.cos((i / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(1001)]
        betas = [min(1 - f[i + 1] / f[i], 0.999) for i in range(1000)]
    return (1 - torch.tensor(betas, dtype=torch.float64)).cumprod(0)


def stepped(schedule: str):
    kept = abar(schedule)

    def coefficients(told: Tensor) -> tuple[Tensor, Tensor]:
        assert (told - told.round()).abs().max() < 1e-6
        return kept[told.round().long()].sqrt(), (1 - kept[told.round().long()]).sqrt()

    return coefficients


def exact(name: str, net: nn.Module, sigma: Tensor) -> None:
    torch.manual_seed(0)
    x = torch.randn(len(sigma), 3, 4, dtype=torch.float64) * (SPREAD**2 + sigma**2).sqrt()[:, None, None]
    found = Denoiser(net, Preconditioning.named(name))(x, sigma)
    torch.testing.assert_close(found, DATA(x, sigma), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(("name", "coefficients"), [("vp-999", vp), ("subvp-999", subvp)])
def test_networks_told_the_time(name, coefficients):
    exact(name, Published(coefficients), SIGMA)


@pytest.mark.parametrize(
    ("name", "schedule"), [("ddpm-1000", "linear"), ("ddpm-cosine-1000", "cosine"), ("iddpm", "cosine")]
)
@pytest.mark.parametrize("learned", [False, True])
def test_networks_told_the_step_and_those_that_also_predict_their_variance(name, schedule, learned):
    kept = abar(schedule)[[0, 3, 250, 700, 998]]
    exact(name, Published(stepped(schedule), learned), (1 / kept - 1).sqrt())


def test_networks_told_half_the_logarithm_of_the_level():
    class Scaled(nn.Module):
        """sigma times the score of N(0, s^2 + sigma^2), given ln(sigma / 2)."""

        def forward(self, x: Tensor, told: Tensor, labels: Tensor | None = None) -> Tensor:
            sigma = broadcast_like(2 * told.exp(), x)
            return -sigma * x / (SPREAD**2 + sigma**2)

    exact("ve-1", Scaled(), SIGMA)


def test_between_the_steps_one_is_told_the_nearest_and_the_other_a_fraction():
    ladder = ddpm_sigmas(1000, "cosine")
    sigma = ladder[[10, 500]] * 0.6 + ladder[[11, 501]] * 0.4
    *_, told = Preconditioning.named("iddpm")(sigma)
    assert told.tolist() == [10, 500]
    *_, told = Preconditioning.named("ddpm-cosine-1000")(sigma)
    assert all(low < value < low + 1 for value, low in zip(told.tolist(), (10, 500), strict=True))


def test_the_nearest_rung_is_the_one_that_a_search_over_all_finds():
    ladder = ddpm_sigmas(1000, "cosine")
    sigma = torch.logspace(-4, 6, 301, dtype=torch.float64)
    assert torch.equal(nearest_step(sigma, ladder), (ladder - sigma[:, None]).abs().argmin(1))
    assert torch.equal(ladder[nearest_step(ladder, ladder)], ladder)
