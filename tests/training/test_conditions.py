"""Augment labels and the target of a step reach every network of an objective, each in a place of its own."""

import pytest
import torch
from torch import Tensor, nn

from cmtool.core.denoiser import TARGET_DIM, Denoiser, Preconditioning, encode_target
from cmtool.objectives.consistency_2023 import cd
from cmtool.objectives.ctm import ctm
from cmtool.objectives.meanflow import meanflow
from cmtool.objectives.objective import Batch
from cmtool.objectives.scm import scd, sct
from cmtool.testing import small_model


class Watched(nn.Module):
    """A network that notes what it is given beside the image."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net, self.seen = net, []

    def forward(
        self,
        x: Tensor,
        c_noise: Tensor,
        labels: Tensor | None = None,
        augment_labels: Tensor | None = None,
        target: Tensor | None = None,
    ) -> Tensor:
        self.seen.append((augment_labels, target))
        return self.net(x, c_noise, labels, augment_labels, target)


def watched(target_dim: int = 0, preconditioning: Preconditioning | None = None) -> Denoiser:
    model = small_model((2,), target_dim=target_dim, augment_dim=3)
    return Denoiser(Watched(model.net), preconditioning or Preconditioning())


def batch(n: int = 5) -> Batch:
    u = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    return Batch(torch.randn(n, 2), torch.randn(n, 2), u, augment_labels=torch.randn(n, 3))


def test_meanflow_gives_the_network_both():
    objective, b = meanflow(), batch()
    model = watched(TARGET_DIM, objective.requirements.preconditioning)
    objective.loss(b.condition(model), b, 0.0).sum().backward()
    t, r = objective.times(b.u)
    first, *_ = model.net.seen
    assert torch.equal(first[0], b.augment_labels)
    assert torch.equal(first[1], encode_target(t / (1 - t), r / (1 - r)).float())
    assert all(parameter.grad.any() for name, parameter in model.named_parameters() if "map_" in name)


def test_ctm_gives_the_student_both_and_the_teacher_the_labels_of_its_images():
    torch.manual_seed(0)
    teacher, model, b = watched().requires_grad_(False), watched(TARGET_DIM), batch()
    objective = ctm(teacher, steps=6, solver="euler", substeps=3)
    objective.begin(model)
    objective.loss(b.condition(model), b, 0.0)
    networks = (model, objective.target)
    for labels, target in [pair for network in networks for pair in network.net.seen]:
        assert torch.equal(labels, b.augment_labels) and target.shape == (5, TARGET_DIM)
    assert all(network.net.seen for network in networks)
    known = {tuple(row) for row in b.augment_labels.tolist()}
    assert all(
        target is None and {tuple(row) for row in labels.tolist()} <= known for labels, target in teacher.net.seen
    )
    assert len(teacher.net.seen[0][0]) == 5 > len(teacher.net.seen[-1][0]), "images that have arrived are left out"


@pytest.mark.parametrize("make", [cd, scd])
def test_a_teacher_and_a_target_network_are_given_the_labels(make):
    teacher, model, b = watched().requires_grad_(False), watched(), batch()
    objective = make(teacher)
    objective.begin(model)
    objective.loss(b.condition(model), b, 0.5)
    networks = [teacher, model] + ([objective.target] if make is cd else [])
    assert all(torch.equal(labels, b.augment_labels) for network in networks for labels, _ in network.net.seen)
    assert all(network.net.seen for network in networks)


def test_with_labels_that_change_nothing_the_loss_is_that_without():
    """Also where the objective looks at what the network itself predicts, past the preconditioning."""
    model, b, objective = watched(), batch(), sct()
    plain = Batch(b.x, b.z, b.u)
    zeros = Batch(b.x, b.z, b.u, augment_labels=torch.zeros(5, 3))
    losses = [objective.loss(some.condition(model), some, 0.5) for some in (plain, zeros)]
    assert torch.equal(*losses)
    assert not torch.equal(objective.loss(b.condition(model), b, 0.5), losses[0])
