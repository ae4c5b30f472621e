"""The chain learns: a denoiser near the exact one, and from it two consistency models near the exact function.

A mixture of two Gaussians on a line, whose truth is known; everything is trained by the tool's own parts in seconds.
"""

from collections.abc import Sequence

import pytest
import torch
from oracles import Mixture
from torch import Tensor

from cmtool.backbones.mlp import mlp
from cmtool.core.denoiser import Denoise, Denoiser, Preconditioning
from cmtool.core.noise import Noise
from cmtool.core.sampling.loops import initial_noise, last, multistep, probability_flow
from cmtool.core.sigma_schedules import append_zero, karras
from cmtool.core.solvers import heun
from cmtool.objectives.consistency_2023 import cd
from cmtool.objectives.easy_consistency import ect
from cmtool.objectives.edm import edm
from cmtool.objectives.objective import Objective
from cmtool.options.lr_schedule import learning_rate
from cmtool.training.batches import BatchConfig, Batches
from cmtool.training.ema import EMA
from cmtool.training.loop import train
from cmtool.training.optimizers import build_optimizer
from cmtool.training.state import State

EPS = 0.002
DATA = Mixture.line((0.4, 0.6), (-0.5, 0.4), (0.15, 0.25))
STD = DATA.covariance.sqrt().item()
LEVELS = [0.1, 0.3, 1.0, 3.0, 10.0, 80.0]


class Points:
    """A data set of points of the mixture."""

    shape, classes, notice = (1,), (), "drawn by the tests"

    def __init__(self, n: int = 20_000):
        self.points = DATA.sample(n, torch.Generator().manual_seed(0)).float()

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, i: int, /) -> tuple[Tensor, None]:
        return self.points[i], None

    def batch(self, indices: Sequence[int]) -> tuple[Tensor, None]:
        return self.points[indices], None


def trained(objective: Objective, images: int, lr: float, parent: Denoiser | None = None) -> Denoiser:
    torch.manual_seed(0)
    model = Denoiser(mlp((1,), 0, hidden_dim=64, depth=2), Preconditioning(STD, objective.requirements.sigma_min))
    if parent:
        model.net.load_state_dict(parent.net.state_dict())
    objective.begin(model)
    steps = build_optimizer({"betas": [0.9, 0.99]}, [*model.parameters(), *objective.trained()], lr)
    state = State(model, objective, steps, EMA(model, images / 20))
    batches = Batches(Points(), BatchConfig(256, seed=1), objective.requirements).since(0)
    for report in train(state, batches, images, lambda n: learning_rate(lr, n, images, images // 20, "cosine")):
        assert report.finite
    batches.close()
    assert isinstance(state.average.model, Denoiser)
    return state.average.model


@pytest.fixture(scope="module")
def teacher() -> Denoiser:
    return trained(edm(sigma_data=STD), images=100_000, lr=4e-3).requires_grad_(False)


def noisy(sigma: float) -> Tensor:
    return DATA.noisy(2000, sigma, torch.Generator().manual_seed(9))


@torch.no_grad()
def denoising_errors(model: Denoise) -> list[float]:
    """``w(sigma) E|D - D*|^2``, in the units in which the loss of the exact denoiser is about 1."""
    errors = [(model(noisy(s).float(), torch.tensor(s), None) - DATA(noisy(s), s)).square().mean() for s in LEVELS]
    return [((s**2 + STD**2) / (s * STD) ** 2 * e).item() for s, e in zip(LEVELS, errors, strict=True)]


@torch.no_grad()
def consistency_errors(model: Denoise) -> list[float]:
    """``E|f - f*|^2`` as a root, in standard deviations of the data."""
    ends = [(model(noisy(s).float(), torch.tensor(s), None), DATA.consistency(noisy(s), s, EPS)) for s in LEVELS]
    return [(f - exact).square().mean().sqrt().item() / STD for f, exact in ends]


def transport(samples: Tensor) -> float:
    """The Wasserstein distance to the data, in their standard deviations: how far the quantiles are apart."""
    exact = DATA.sample(200_000, torch.Generator().manual_seed(5)).flatten().sort().values
    quantiles = exact[((torch.arange(len(samples)) + 0.5) / len(samples) * len(exact)).long()]
    return (samples.flatten().double().sort().values - quantiles).abs().mean().item() / STD


def one_step(model: Denoise, seeds: int = 4000) -> Tensor:
    noise, levels = Noise(range(seeds)), torch.tensor([80.0], dtype=torch.float64)
    return last(multistep(model, initial_noise(noise, (1,), levels[0]), levels, noise))


def tell(name: str, errors: Sequence[float], distance: float) -> None:
    """A row of the table in docs/benchmarks.md, which ``pytest -s tests/training`` prints."""
    row = [f"`{name}`", *(f"{error:.3f}" for error in errors), f"{distance:.3f}"]
    print(f"\n| {' | '.join(row)} |")


def test_the_denoiser_is_learnt(teacher):
    """A single Gaussian of the data's moments, the best linear denoiser, errs by 0.12 where the modes show."""

    def linear(x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
        return DATA.mean + STD**2 / (STD**2 + sigma**2) * (x.double() - DATA.mean)

    assert max(denoising_errors(teacher)[:-1]) < 0.005, "80 is 5 deviations from what training visits"
    assert denoising_errors(linear)[0] > 0.1
    walk = probability_flow(
        teacher, initial_noise(Noise(range(4000)), (1,), torch.tensor(80.0)), append_zero(karras(18)), heun()
    )
    assert transport(last(walk)) < 0.1


@pytest.mark.parametrize(
    ("name", "recipe", "lr"),
    [
        ("cd", lambda teacher: cd(teacher, steps=18, decay=0.9), 4e-3),
        ("ect", lambda teacher: ect(weight="output", c=0.3, sigma_data=STD), 2e-3),
    ],
    ids=["cd", "ect"],
)
def test_the_consistency_function_is_learnt(teacher, name, recipe, lr):
    """From the teacher's weights; 18 Heun steps alone err by about 0.06, and the teacher taken as a student by 0.9."""
    student = trained(recipe(teacher), images=120_000, lr=lr, parent=teacher)
    tell(name, consistency_errors(student), transport(one_step(student)))
    assert consistency_errors(teacher)[-1] > 0.85
    assert max(consistency_errors(student)) < 0.15
    assert consistency_errors(student)[0] < 0.04
    assert transport(one_step(teacher)) > 0.5
    assert transport(one_step(student)) < 0.12
