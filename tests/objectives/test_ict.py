"""Improved consistency training: its pairs, metric and weight, and that fixed pairs do not change what is learnt."""

import pytest
import torch
from expectations import EPS
from test_consistency import batch, scaled

from cmtool.core.sigma_schedules import karras
from cmtool.errors import UsageError
from cmtool.objectives.consistency_2023 import adjacent_log_normal, ict
from cmtool.objectives.distances import pseudo_huber, pseudo_huber_of


def test_pairs_are_neighbours_of_a_grid_that_doubles():
    u = batch().u
    for progress, n in ((0.0, 11), (0.124, 11), (0.126, 21), (0.51, 161), (1.0, 1281)):
        t, r = ict().pair(u, progress)
        expected = adjacent_log_normal(u, karras(n, EPS, 80.0), -1.1, 2.0)
        assert torch.equal(t, expected[0])
        assert torch.equal(r, expected[1])
        grid = karras(n)
        at = [(grid - level).abs().argmin() for level in t]
        assert r.tolist() == [grid[i + 1] for i in at]


def test_the_loss_is_the_formula():
    b, model = batch(), scaled(0.7)
    for c, metric in ((None, pseudo_huber), (0.3, pseudo_huber_of(0.3))):
        objective = ict(c=c)
        t, r = objective.pair(b.u, 0.3)
        there = torch.where((r > EPS)[:, None], 0.7, 1.0) * (b.x + r[:, None].float() * b.z)
        expected = metric(0.7 * (b.x + t[:, None].float() * b.z), there) / (t - r)
        assert torch.allclose(objective.loss(model, b, 0.3), expected.float(), rtol=1e-5)
    assert objective.target is None


def test_the_other_weight_is_that_of_the_output():
    t, r = ict().pair(batch().u, 0.0)
    assert torch.allclose(ict(weight="output").weight(t, r), (t**2 + 0.25).sqrt() / (0.5 * t))


def test_mistakes_are_named():
    with pytest.raises(UsageError, match="unknown weight 'gab'"):
        ict(weight="gab")
    for first, final in ((0, 10), (20, 10)):
        with pytest.raises(UsageError, match=f"not from {first} to {final}"):
            ict(s0=first, s1=final)
