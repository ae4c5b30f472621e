"""The Inception Score by closed forms, and the distance with endless images by Gaussians whose distance is known."""

import numpy as np
import pytest
import torch

from cmtool.errors import UsageError
from cmtool.evaluation.fid_infinity import extrapolate, fit_line
from cmtool.evaluation.frechet import Moments, frechet_distance
from cmtool.evaluation.inception_score import InceptionScore
from cmtool.evaluation.statistics import Normal


def test_sure_and_varied_scores_the_classes_and_unsure_or_uniform_scores_one():
    sure, unsure = InceptionScore(), InceptionScore()
    sure.update(torch.eye(10).repeat(7, 1))
    unsure.update(torch.full((30, 10), 0.1))
    assert sure.mean == pytest.approx(10, rel=1e-12) and unsure.mean == pytest.approx(1, rel=1e-12)
    same = InceptionScore()
    same.update(torch.eye(10)[:1].repeat(20, 1))
    assert same.mean == pytest.approx(1, rel=1e-12)


def test_splits_are_of_the_order_and_batches_do_not_matter():
    rows = torch.from_numpy(np.random.default_rng(0).dirichlet(np.full(8, 0.3), 95))
    whole, pieces = InceptionScore(split=40), InceptionScore(split=40)
    whole.update(rows)
    for some in rows.split(17):
        pieces.update(some)
    wanted = []
    for part in (rows[:40], rows[40:80], rows[80:]):
        p = part.numpy()
        wanted.append(np.exp((p * (np.log(p) - np.log(p.mean(0)))).sum(1).mean()))
    assert whole.scores.tolist() == pytest.approx(wanted, rel=1e-12)
    assert pieces.scores.tolist() == pytest.approx(wanted, rel=1e-12)
    assert whole.mean == pytest.approx(np.mean(wanted)) and whole.spread == pytest.approx(np.std(wanted))


def test_the_line_is_numpys_and_exact_on_a_line():
    measured = [(n, 3.0 + 50 / n) for n in (100, 200, 400)]
    assert fit_line(measured) == pytest.approx(3.0, rel=1e-12)
    crooked = [(n, value + n % 3) for n, value in measured]
    slope, cut = np.polyfit([1 / n for n, _ in crooked], [v for _, v in crooked], 1)
    assert fit_line(crooked) == pytest.approx(cut, rel=1e-9) and slope > 0


def known(seed, n=500, d=8, shift=0.3):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(n, d, generator=generator, dtype=torch.float64) + shift
    return rows, Normal(torch.zeros(d, dtype=torch.float64), torch.eye(d, dtype=torch.float64)), d * shift**2


def test_the_bias_is_taken_off_and_the_interval_covers_the_truth():
    hits, found, biased = 0, [], []
    for seed in range(40):
        rows, reference, truth = known(seed)
        result = extrapolate(rows, reference, seed=seed)
        hits += result.low <= truth <= result.high
        found.append(result.value)
        biased.append(result.measured[-1][1])
        assert result.low < result.value < result.high
    truth = known(0)[2]
    assert np.mean(biased) - truth > 0.05  # 0.72 becomes 0.80
    assert abs(np.mean(found) - truth) < 0.03
    assert 35 <= hits < 40  # 95 % of 40 is 38


def test_the_last_measurement_is_the_distance_of_all_images():
    rows, reference, _ = known(1)
    seen = Moments()
    seen.update(rows)
    last = extrapolate(rows, reference, resamples=2).measured[-1]
    assert last == (500, pytest.approx(frechet_distance(seen, reference), rel=1e-10))
    with pytest.raises(UsageError, match="at least 80 images, not 79"):
        extrapolate(rows[:79], reference)
