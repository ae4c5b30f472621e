"""CTM and MeanFlow learn all jumps of a mixture on a line, whose flow is known, in seconds."""

import pytest
import torch
from oracles import Mixture
from test_learning import DATA, STD, Points, consistency_errors, noisy, one_step, tell, transport
from torch import Tensor

from cmtool.backbones.mlp import mlp
from cmtool.core.denoiser import TARGET_DIM, Denoise, Denoiser, Preconditioning
from cmtool.core.flow_map import flow_map_step
from cmtool.objectives.ctm import ctm
from cmtool.objectives.meanflow import meanflow
from cmtool.objectives.objective import Objective
from cmtool.options.lr_schedule import learning_rate
from cmtool.training.batches import BatchConfig, Batches
from cmtool.training.ema import EMA
from cmtool.training.loop import train
from cmtool.training.optimizers import build_optimizer
from cmtool.training.state import State

PAIRS = [
    (80.0, 0.0),
    (80.0, 10.0),
    (80.0, 1.0),
    (10.0, 0.3),
    (3.0, 1.0),
    (1.0, 0.0),
    (1.0, 0.3),
    (0.3, 0.1),
    (0.1, 0.0),
]
assert isinstance(DATA, Mixture)


def trained(objective: Objective, images: int, lr: float, batch: int) -> Denoiser:
    torch.manual_seed(0)
    net = mlp((1,), 0, hidden_dim=64, depth=2, target_dim=TARGET_DIM)
    model = Denoiser(net, objective.requirements.preconditioning or Preconditioning(STD))
    objective.begin(model)
    steps = build_optimizer({"betas": [0.9, 0.99]}, model.parameters(), lr)
    state = State(model, objective, steps, EMA(model, images / 20))
    batches = Batches(Points(), BatchConfig(batch, seed=1)).since(0)
    for report in train(state, batches, images, lambda n: learning_rate(lr, n, images, images // 20, "cosine")):
        assert report.finite
    batches.close()
    assert isinstance(state.average.model, Denoiser)
    return state.average.model


@torch.no_grad()
def errors(model) -> list[float]:
    """``E|G - G*|^2`` as a root, in standard deviations of what is at the lower level."""
    found = []
    for t, s in PAIRS:
        x = noisy(t)
        there, here = (
            DATA.flow(x, t, s),
            flow_map_step(model, x.float(), torch.full((len(x),), t), torch.full((len(x),), s)),
        )
        found.append((here - there).square().mean().sqrt().item() / (STD**2 + s**2) ** 0.5)
    return found


def ending(model: Denoiser) -> Denoise:
    """The jumps that end at the image."""

    def ends(x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
        levels = sigma.to(x).expand(len(x))
        return flow_map_step(model, x, levels, torch.zeros_like(levels))

    return ends


def euler(x, t, labels=None, target_sigma=None):
    """What a network that heeds no target would do: step along the tangent."""
    return DATA(x, t).float()


@pytest.mark.parametrize(
    ("name", "objective", "images", "lr", "most"),
    [
        ("ctm", ctm(euler, decay=0.9, substeps=4, sigma_data=STD), 80_000, 4e-3, 0.15),
        ("meanflow", meanflow(sigma_data=STD), 100_000, 3e-3, 0.35),
    ],
    ids=["ctm", "meanflow"],
)
def test_all_jumps_are_learnt(name, objective, images, lr, most):
    model = trained(objective, images, lr, 256)
    whole = ending(model)
    tell(name, consistency_errors(whole), transport(one_step(whole)))
    assert errors(euler)[0] > 0.9
    assert max(errors(model)) < most
