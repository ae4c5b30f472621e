"""Truncated training: which levels, what each pair counts, and whose answer is the target."""

import pytest
import torch
from test_consistency import scaled
from torch import Tensor

from cmtool.errors import UsageError
from cmtool.objectives.consistency import ect_ratio
from cmtool.objectives.distances import l2
from cmtool.objectives.objective import Batch
from cmtool.objectives.tcm import log_student, tcm


def batch(n: int = 40) -> Batch:
    generator = torch.Generator().manual_seed(0)
    x, z = (torch.randn(n, 3, generator=generator, dtype=torch.float64) for _ in "xz")
    return Batch(x, z, (torch.arange(n, dtype=torch.float64) + 0.5) / n)


def test_a_quarter_of_the_pairs_sits_at_the_boundary_and_the_others_above():
    u = batch().u
    t, r = tcm().pair(u, 0.3)
    assert t[:10].tolist() == [1.0] * 10
    rest = (torch.arange(30, dtype=torch.float64) + 0.5) / 30
    assert t[10:].tolist() == pytest.approx(log_student(rest, 1.0, 80.0, 0.01, 0.2).tolist(), rel=1e-9)
    assert r.tolist() == pytest.approx(ect_ratio(t, 0, 1000.0).tolist())
    assert (r[:10] < 1).all()


def test_the_loss_is_a_mean_over_pairs_and_a_tenth_of_a_mean_over_the_boundary():
    b, objective = batch(), tcm(c=0.3)
    model = scaled(0.7)
    objective.begin(model)
    t, r = objective.pair(b.u, 0.0)
    single = objective.metric(0.7 * (b.x + t[:, None] * b.z), 0.7 * (b.x + r[:, None] * b.z)) / (t - r)
    expected = single[10:].mean() + 0.1 * single[:10].mean()
    assert objective.loss(model, b, 0.0).mean().item() == pytest.approx(expected.item(), rel=1e-6)


def test_below_the_boundary_the_model_as_it_was_answers():
    b, objective, model = batch(), tcm(q=4.0), scaled(0.7)
    objective.begin(model)
    objective.metric, objective.weight = l2, lambda t, r: torch.ones_like(t)
    model.factor.data.fill_(0.5)
    t, r = objective.pair(b.u, 0.0)
    assert (t[r < 1] > 1).any(), "pairs that straddle the boundary, and not only those at it"
    assert (r > 1).any()
    factor = torch.where(r < 1, torch.full_like(r, 0.7), torch.full_like(r, 0.5)).float().double()[:, None]
    expected = (0.5 * (b.x + t[:, None] * b.z) - factor * (b.x + r[:, None] * b.z)).square().mean(1)
    assert torch.allclose(objective.loss(model, b, 0.0), expected, rtol=1e-6)
    objective.update(model, 0.5)
    assert objective.teacher.factor.item() == pytest.approx(0.7)


def test_classes_reach_both_networks():
    asked = []

    class Told(torch.nn.Module):
        def forward(self, x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
            asked.append((sigma, labels))
            return x

    b, objective = batch(), tcm()
    b = Batch(b.x, b.z, b.u, labels=torch.arange(40))
    objective.begin(Told())
    objective.teacher, model = Told(), Told()
    objective.loss(model, b, 0.0)
    _, r = objective.pair(b.u, 0.0)
    assert [len(labels) for _, labels in asked] == [40, 40, (r < 1).sum()]
    assert torch.equal(asked[2][0], r[asked[2][1]])


def test_what_its_checkpoints_say():
    objective = tcm(start=2.0)
    assert (objective.requirements.kind, objective.requirements.starts_from) == ("consistency", "consistency")
    assert (objective.requirements.lowest_sigma, objective.sampling_sigmas) == (2.0, [2.0])
    objective.begin(scaled(0.7))
    assert all(key.startswith("teacher.") for key in objective.state_dict()), "it comes from --init, not the snapshot"
    with pytest.raises(UsageError, match="unknown weight 'gab'"):
        tcm(weight="gab")
