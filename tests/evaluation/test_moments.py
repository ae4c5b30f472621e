import numpy as np
import pytest
import torch

from cmtool.errors import Diverged, UsageError
from cmtool.evaluation import frechet as module
from cmtool.evaluation.frechet import Moments


@pytest.fixture(scope="module")
def features():
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(12, 12, generator=generator)
    return torch.randn(301, 12, generator=generator) @ mix + 1000


def moments(*chunks):
    seen = Moments()
    for chunk in chunks:
        seen.update(chunk)
    return seen


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", [1, 7, 100, 301])
def test_any_batches_give_numpys_mean_and_covariance(features, size):
    seen = moments(*features.split(size))
    rows = features.double().numpy()
    assert seen.n == 301
    close(seen.mean, torch.from_numpy(rows.mean(axis=0)))
    close(seen.covariance, torch.from_numpy(np.cov(rows, rowvar=False)))


def test_merging_equals_seeing_all_and_leaves_the_other_alone(features):
    whole, left, right = moments(features), moments(features[:40]), moments(features[40:])
    untouched = right.covariance.clone()
    for total in (Moments(), left):
        total.merge(right)
    left.merge(Moments())
    close(left.mean, whole.mean)
    close(left.covariance, whole.covariance)
    close(right.covariance, untouched)


def test_an_empty_merge_target_does_not_share_memory(features):
    other, total = moments(features[:40]), Moments()
    total.merge(other)
    total.update(features[40:])
    close(other.covariance, moments(features[:40]).covariance)


def test_a_large_offset_loses_no_digits():
    steps = torch.arange(1000, dtype=torch.float64)[:, None]
    seen = moments(*(steps + 1e9).split(13))
    # the variance of 0 .. n-1 with divisor n - 1 is n (n + 1) / 12
    assert seen.covariance.item() == pytest.approx(1000 * 1001 / 12, rel=1e-12)


def test_too_few_rows_and_numbers_that_are_not_finite_are_refused(features):
    with pytest.raises(UsageError, match="at least 2 images"):
        _ = moments(features[:1]).covariance
    with pytest.raises(Diverged, match="not finite"):
        moments(torch.tensor([[1.0, float("nan")]]))


def test_no_bit_depends_on_the_batches(monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 8)
    rows = torch.randn(61, 5, generator=torch.Generator().manual_seed(3)) + 7
    whole = Moments()
    whole.update(rows)
    for size in (1, 3, 8, 20):
        seen = Moments()
        for part in rows.split(size):
            seen.update(part)
            assert seen.mean.shape == (5,)  # looking on the way changes nothing
        assert (seen.n, seen.rest.shape) == (61, (5, 5))
        assert torch.equal(seen.mean, whole.mean)
        assert torch.equal(seen.covariance, whole.covariance)
    torch.testing.assert_close(whole.covariance, torch.cov(rows.double().T))
