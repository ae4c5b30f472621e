"""The target of less variance: the posterior mean of the images at hand, class by class, whatever the cut."""

import pytest
import torch
from expectations import EPS
from oracles import Mixture, golden_line
from torch import Tensor

from cmtool.core.solvers import euler
from cmtool.errors import UsageError
from cmtool.objectives.consistency import along_teacher
from cmtool.objectives.distances import l2
from cmtool.objectives.easy_consistency import ecd, ect, posterior_mean, stable
from cmtool.objectives.objective import Batch
from cmtool.options import registry

POINTS = torch.tensor([[0.3, -0.2], [-0.8, 0.5], [0.1, 0.9], [0.6, 0.4], [-0.3, -0.7]], dtype=torch.float64)


def atoms(points: Tensor) -> Mixture:
    """Data that are these points and no others, but for 1e-9."""
    n = len(points)
    return Mixture([1 / n] * n, points.tolist(), [(1e-18 * torch.eye(2)).tolist()] * n)


def batch(n: int = 40, labels: Tensor | None = None, classes: Tensor | None = None) -> Batch:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(n, 2, generator=generator, dtype=torch.float64)
    u = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    return Batch(POINTS[torch.arange(n) % 5], z, u, labels, others=POINTS, classes=classes)


@pytest.mark.parametrize("t", [0.002, 0.1, 0.7, 3.0, 80.0])
def test_the_posterior_mean_is_the_denoiser_of_the_images_at_hand(t):
    b, levels = batch(), torch.full((40,), t, dtype=torch.float64)
    x_t = b.x + t * b.z
    assert torch.allclose(posterior_mean(x_t, levels, b), atoms(POINTS)(x_t, t), rtol=0, atol=1e-9)


def test_with_labels_it_is_the_denoiser_of_the_class():
    classes, labels = torch.tensor([0, 0, 1, 1, 1]), torch.arange(40) % 2
    b = batch(labels=labels, classes=classes)
    x_t, t = b.x + 2 * b.z, torch.full((40,), 2.0, dtype=torch.float64)
    expected = torch.stack([atoms(POINTS[classes == k])(x_t, 2.0)[i] for i, k in enumerate(labels.tolist())])
    assert torch.allclose(posterior_mean(x_t, t, b), expected, rtol=0, atol=1e-9)
    untold = batch(labels=torch.full((40,), -1), classes=classes)
    assert torch.equal(posterior_mean(x_t, t, untold), posterior_mean(x_t, t, batch())), "no class is all of them"


def test_it_is_distillation_by_euler_of_the_denoiser_of_the_data():
    """The step back is Euler's with the exact denoiser of the data set, so the loss has no noise of its own."""
    b, objective = batch(), stable(sigma_min=0.0)
    objective.metric = l2
    taught = ect(sigma_min=0.0)
    taught.metric, taught.previous_point = l2, along_teacher(atoms(POINTS), euler())
    model = golden_line().student(EPS)

    def both(x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        return torch.cat([model(x[:, :1], sigma), model(x[:, 1:], sigma)], 1)

    _, r = objective.pair(b.u, 0.9)
    assert (r > 0).all()
    assert torch.allclose(objective.loss(both, b, 0.9), taught.loss(both, b, 0.9), rtol=1e-6)


@pytest.mark.parametrize("progress", [0.0, 0.3, 0.9])
def test_with_the_denoiser_of_the_data_as_the_teacher_ecd_is_the_same(progress):
    """From pairs that begin at 0, where Euler's step ends at the denoised image, to close ones."""
    b, model = batch(), golden_line().student(EPS)

    def both(x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        return torch.cat([model(x[:, :1], sigma), model(x[:, 1:], sigma)], 1)

    taught, told = ecd(atoms(POINTS)), stable()
    assert torch.allclose(taught.loss(both, b, progress), told.loss(both, b, progress), rtol=1e-6, atol=1e-9)


def test_neither_the_cut_of_a_batch_nor_the_order_of_the_others_matters():
    b, objective = batch(), stable()

    def model(x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
        return x / (1 + sigma[:, None])

    whole = objective.loss(model, b, 0.5)
    pieces = torch.cat([objective.loss(model, piece, 0.5) for piece in b.split(7)])
    assert torch.allclose(pieces, whole, rtol=1e-12)
    turned = Batch(b.x, b.z, b.u, others=POINTS.flip(0))
    assert torch.allclose(objective.loss(model, turned, 0.5), whole, rtol=1e-12)


def test_mistakes_are_named():
    with pytest.raises(UsageError, match="must be at least 1, not 0"):
        registry.build("train_ct", {"name": "stable", "others": 0})
    with pytest.raises(UsageError, match="unknown weight 'gab'"):
        stable(weight="gab")
