"""Dropped labels teach the density without classes, and a student of a guided teacher learns the guided walk.

Two classes on a line, each a Gaussian of one width, whose truth is known.
"""

from collections.abc import Sequence

import pytest
import torch
from oracles import Gaussian, Mixture
from torch import Tensor

from cmtool.backbones.mlp import mlp
from cmtool.core.denoiser import Denoiser, Preconditioning
from cmtool.core.guidance import Guided
from cmtool.objectives.consistency_2023 import cd
from cmtool.objectives.edm import edm
from cmtool.objectives.objective import Objective
from cmtool.options.lr_schedule import learning_rate
from cmtool.training.batches import BatchConfig, Batches
from cmtool.training.ema import EMA
from cmtool.training.loop import train
from cmtool.training.optimizers import build_optimizer
from cmtool.training.state import State

MEANS, WIDTH, SHARE = (-0.5, 0.5), 0.25, 0.3  # a label in three is dropped
CLASSES = [Gaussian(mean, WIDTH) for mean in MEANS]
EVERYTHING = Mixture.line((0.5, 0.5), MEANS, (WIDTH, WIDTH))
STD = EVERYTHING.covariance.sqrt().item()


class Points:
    """Points of the two classes, half of each."""

    shape, classes, notice = (1,), ("left", "right"), "drawn by the tests"

    def __init__(self, n: int = 20_000):
        self.labels = torch.arange(n) % 2
        z = torch.randn(n, generator=torch.Generator().manual_seed(0))
        self.points = (torch.tensor(MEANS)[self.labels] + WIDTH * z)[:, None]

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, i: int, /) -> tuple[Tensor, int]:
        return self.points[i], int(self.labels[i])

    def batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        return self.points[indices], self.labels[indices]


def trained(objective: Objective, images: int, lr: float, drop: float = 0.0) -> Denoiser:
    torch.manual_seed(0)
    model = Denoiser(mlp((1,), 2, hidden_dim=64, depth=2), Preconditioning(STD, objective.requirements.sigma_min))
    objective.begin(model)
    steps = build_optimizer({"betas": [0.9, 0.99]}, model.parameters(), lr)
    state = State(model, objective, steps, EMA(model, images / 20))
    batches = Batches(Points(), BatchConfig(256, seed=1, label_dropout=drop)).since(0)
    for report in train(state, batches, images, lambda n: learning_rate(lr, n, images, images // 20, "cosine")):
        assert report.finite
    batches.close()
    assert isinstance(state.average.model, Denoiser)
    return state.average.model


def exact(x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
    """The denoiser of a class, or of them all."""
    if labels is None:
        return EVERYTHING(x, sigma).float()
    return torch.where((labels == 0)[:, None], CLASSES[0](x, sigma), CLASSES[1](x, sigma)).float()


@torch.no_grad()
def error(model: Denoiser, labels: Tensor | None) -> float:
    """The largest root mean square error of the denoiser over the levels, in standard deviations of the data."""
    generator, errors = torch.Generator().manual_seed(9), []
    for sigma in torch.tensor([0.1, 0.3, 1.0, 3.0, 10.0], dtype=torch.float64):
        x = EVERYTHING.noisy(2000, float(sigma), generator).float()
        errors.append((model(x, sigma, labels) - exact(x, sigma, labels)).square().mean().sqrt())
    return float(max(errors)) / STD


def test_dropped_labels_teach_the_density_without_classes():
    dropping, never = trained(edm(sigma_data=STD), 100_000, 4e-3, SHARE), trained(edm(sigma_data=STD), 30_000, 4e-3)
    assert error(dropping, torch.arange(2000) % 2) < 0.15
    assert error(dropping, None) < 0.1
    assert error(never, None) > 3 * error(dropping, None), "what nothing taught is arbitrary"


@pytest.mark.slow
def test_a_student_of_a_guided_teacher_learns_the_guided_walk():
    """Against the mean of the classes, a point, guidance of weight 2 is ``N(m, s)^2 N(0, s)^-1 = N(2 m, s)``."""
    middle = Gaussian(0.0, WIDTH)
    guided = Guided(exact, lambda x, sigma, labels: middle(x, sigma).float(), 2.0)
    student = trained(cd(guided, steps=30, sigma_max=20.0, decay=0.9), 100_000, 2e-3)  # type: ignore[arg-type]
    labels = torch.arange(500) % 2
    x = 20 * torch.randn(500, 1, generator=torch.Generator().manual_seed(1))
    goal = Gaussian(2 * torch.tensor(MEANS)[labels][:, None], WIDTH).flow(x, 20.0, 0.002)
    with torch.no_grad():
        found = student(x, torch.tensor(20.0), labels)
    assert (found - goal).square().mean().sqrt() < 0.15, "the mean of the class has moved by 0.5"
