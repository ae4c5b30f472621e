import math
from itertools import islice, pairwise

import pytest

from cmtool.evaluation.sigma_search import RATIO, Trial, golden_section, measurements, search

ENDS = (80.0, 0.002)


def coupled(levels, centre=(4.0, 0.2), pull=0.8):
    """A bowl in ln sigma whose two levels pull at one another: positive definite for |pull| < 1."""
    a, b = (math.log(level / middle) for level, middle in zip(levels, centre, strict=True))
    return 3.0 + a * a + b * b + 2 * pull * a * b


def best(trials):
    return min(trials, key=lambda trial: trial.value)


def test_the_bracket_shrinks_by_the_golden_ratio():
    """Of a rising function the lower part is kept each time: the points are low + r^k of the width, k = 2, 1, 3, ..."""
    seen = [x for x, _ in golden_section(lambda x: x, 1.0, 3.0, 0.02)]
    assert seen == pytest.approx([1 + 2 * RATIO**k for k in (2, 1, *range(3, len(seen) + 1))], abs=1e-12)
    falling = [x for x, _ in golden_section(lambda x: -x, 1.0, 3.0, 0.02)]
    assert falling == pytest.approx([3 - 2 * RATIO**k for k in (1, 2, *range(3, len(seen) + 1))], abs=1e-12)


@pytest.mark.parametrize("width", [5.0, 1.9, 2 * RATIO, 1.0, 0.1, 1e-3, 1e-9])
def test_as_many_measurements_as_announced_and_no_more_than_needed(width):
    calls = []
    trials = list(golden_section(lambda x: calls.append(x) or abs(x - 0.3), 0.0, 2.0, width))
    assert [x for x, _ in trials] == calls
    assert len(calls) == measurements(0.0, 2.0, width) == len(set(calls))
    left = 2.0 * RATIO ** (len(calls) - 1)
    assert left <= width * (1 + 1e-9)
    assert len(calls) == 2 or left / RATIO > width


@pytest.mark.parametrize("lowest", [-6.2, -3.0, 0.0, 1.7, 4.3])
def test_one_valley_is_found_within_the_width(lowest):
    trials = list(golden_section(lambda x: abs(x - lowest) ** 1.5, -6.2, 4.4, 0.05))
    assert min(trials, key=lambda trial: trial[1])[0] == pytest.approx(lowest, abs=0.05)


def test_one_measurement_is_made_for_one_that_is_read():
    calls = []
    assert len(list(islice(golden_section(lambda x: calls.append(x) or x, 0.0, 1.0, 1e-6), 3))) == 3
    assert len(calls) == 3


def test_two_coupled_levels():
    trials = list(search(coupled, (20.0, 2.0), ENDS, width=1e-3, tolerance=1e-9))
    assert trials[0] == Trial((20.0, 2.0), coupled((20.0, 2.0)))
    assert best(trials).sigmas == pytest.approx((4.0, 0.2), rel=2e-3)
    assert best(trials).value == pytest.approx(3.0, abs=1e-5)
    assert len({trial.sigmas for trial in trials}) == len(trials), "something was measured twice"
    once = list(search(coupled, (20.0, 2.0), ENDS, width=1e-3, tolerance=0.5))
    assert len(once) < len(trials)
    assert best(once).value > best(trials).value


def test_one_level_alone_is_looked_for_once():
    trials = list(search(lambda levels: math.log(levels[0] / 0.8) ** 2, (2.0,), ENDS, width=0.1, tolerance=0.0))
    assert len(trials) == 1 + measurements(math.log(0.002), math.log(80.0), 0.1) == 12
    assert best(trials).sigmas[0] == pytest.approx(0.8, rel=0.1)


def test_levels_stay_in_order_and_move_one_at_a_time():
    """The least value lies beyond the order: the first level would be lower than the second."""
    trials = list(search(lambda x: coupled(x, (0.1, 5.0), 0.0), (20.0, 2.0), ENDS, width=0.1, tolerance=0.01))
    assert len(trials) >= 20
    for trial in trials:
        assert all(a > b for a, b in pairwise((80.0, *trial.sigmas, 0.002)))
    path = [trials[0]]
    for trial in trials[1:]:
        assert any(sum(a != b for a, b in zip(trial.sigmas, t.sigmas, strict=True)) == 1 for t in path)
        path.append(trial)


@pytest.mark.parametrize("roughness", [0.0, 0.3, 5.0])
def test_never_worse_than_the_start_however_rough(roughness):
    """Noise makes valleys (trap 18); one start is at the bottom of the bowl."""

    def rough(levels):
        return coupled(levels) + roughness * (math.sin(1e4 * sum(map(math.log, levels))) + 1)

    for start in ((4.0, 0.2), (30.0, 0.01), (1.0, 0.9)):
        trials = list(search(rough, start, ENDS, width=0.1, tolerance=0.0))
        assert trials[0].sigmas == start
        for budget in (1, 2, 7, len(trials)):
            assert best(trials[:budget]).value <= rough(start)


def test_a_flat_function_ends_after_one_round():
    each = [measurements(math.log(low), math.log(high), 0.1) for low, high in ((2.0, 80.0), (0.002, 20.0))]
    trials = list(search(lambda levels: 1.0, (20.0, 2.0), ENDS, width=0.1, tolerance=0.0))
    assert len(trials) == 1 + sum(each)
    assert best(trials) is trials[0]
