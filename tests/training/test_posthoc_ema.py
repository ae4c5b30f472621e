"""Power-function averages against integrals, and those rebuilt after training against those kept in it."""

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from torch import nn

from cmtool.training.ema import EMA, power_decay
from cmtool.training.posthoc_ema import exponent, overlap, profile, solve_mix, width

TIMES = [1000.0 * k for k in range(1, 9) for _ in range(2)]
WIDTHS = [0.05, 0.10] * 8


@pytest.mark.parametrize("w", [0.01, 0.05, 0.10, 0.2, 0.288])
def test_a_width_is_the_standard_deviation_of_its_profile(w):
    mean, square = (quad(lambda x, k=k: x**k * profile(np.array(x), 1.0, w), 0, 1, epsabs=1e-13)[0] for k in (1, 2))
    assert np.sqrt(square - mean**2) == pytest.approx(w, rel=1e-6)
    assert width(exponent(w)) == pytest.approx(w, rel=1e-12)


@pytest.mark.parametrize(("w", "gamma"), [(0.05, 16.97219), (0.10, 6.93720), (0.01, 96.99489), (12**-0.5, 0.0)])
def test_exponents_that_are_known(w, gamma):
    assert exponent(w) == pytest.approx(gamma, abs=1e-5)


@pytest.mark.parametrize("a", [(700.0, 0.05), (700.0, 0.2), (2000.0, 0.1)])
@pytest.mark.parametrize("b", [(700.0, 0.05), (1200.0, 0.1)])
def test_an_overlap_is_the_integral_of_a_product(a, b):
    end = min(a[0], b[0])
    expected = quad(lambda t: profile(np.array(t), *a) * profile(np.array(t), *b), 0, end, epsabs=1e-15)[0]
    assert overlap([a[0]], [a[1]], [b[0]], [b[1]])[0, 0] == pytest.approx(expected, rel=1e-8)


def averages(trajectory: torch.Tensor, batch: int, of: list[float], keep: int) -> dict[tuple[float, float], np.ndarray]:
    """Every power average of weights that are ``trajectory[k]`` after the k-th step, kept every ``keep`` steps."""
    model = nn.Linear(trajectory.shape[1], 1, bias=False, dtype=torch.float64)
    running, kept = {w: EMA(model, rule=power_decay(w)) for w in of}, {}
    for k, value in enumerate(trajectory, 1):
        model.weight.data[0] = value
        for w, average in running.items():
            average.update(model, batch, k * batch)
            if k % keep == 0:
                kept[k * batch, w] = next(average.model.parameters())[0].numpy().copy()
    return kept


@pytest.mark.parametrize("w", [0.05, 0.1, 0.25])
def test_a_power_average_is_the_integral_of_the_trajectory(w):
    """A step's weights stand from its beginning to its end, so that the sum over steps is the integral exactly."""
    walk = torch.randn(50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64).cumsum(0)
    edges = np.arange(51) / 50
    shares = np.diff(edges ** (exponent(w) + 1))
    found = averages(walk, 32, [w], keep=50)[50 * 32, w]
    assert found == pytest.approx(shares @ walk.numpy(), rel=1e-12)


def test_the_mean_age_on_a_straight_line():
    """The average of ``theta = tau`` is ``(gamma + 1) / (gamma + 2)`` of the end; a step's weights are of its end."""
    line = torch.arange(1, 4001, dtype=torch.float64)[:, None] / 4000
    found = averages(line, 1, [0.1], keep=4000)[4000, 0.1]
    gamma = exponent(0.1)
    assert found[0] == pytest.approx((gamma + 1) / (gamma + 2), abs=1 / 4000)


@pytest.mark.parametrize("which", range(len(TIMES)))
def test_what_was_stored_comes_back_exactly(which):
    mix = solve_mix(TIMES, WIDTHS, TIMES[which], WIDTHS[which])
    assert mix.weights == pytest.approx(np.eye(len(TIMES))[which], abs=1e-9)
    assert mix.residual < 1e-7
    assert mix.gain == pytest.approx(1, abs=1e-8)


def test_the_residual_is_the_distance_of_the_profiles():
    mix = solve_mix(TIMES, WIDTHS, TIMES[-1], 0.15)
    at = (np.arange(200_000) + 0.5) / 200_000 * TIMES[-1]
    made = sum(x * profile(at, t, w) for x, t, w in zip(mix.weights, TIMES, WIDTHS, strict=True))
    wanted = profile(at, TIMES[-1], 0.15)
    assert mix.residual == pytest.approx(np.linalg.norm(made - wanted) / np.linalg.norm(wanted), rel=1e-4)
    assert mix.weights.sum() == pytest.approx(1, rel=1e-12)
    assert mix.gain == pytest.approx(np.abs(mix.weights).sum())


@pytest.mark.parametrize("w", [0.03, 0.07, 0.15])
def test_an_average_that_was_not_kept_is_as_near_as_the_residual_says(w):
    """Cauchy-Schwarz: |rebuilt - kept| <= residual |profile| |trajectory|, norms over time."""
    walk = torch.randn(400, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64).cumsum(0) / 20
    batch = 20
    kept = averages(walk, batch, [0.05, 0.10, w], keep=50)
    stored = [(t, of) for t, of in kept if of != w]
    times, of = zip(*stored, strict=True)
    mix = solve_mix(times, of, 400 * batch, w)
    rebuilt = sum(x * kept[key] for x, key in zip(mix.weights, stored, strict=True))
    error = np.abs(rebuilt - kept[400 * batch, w])
    norm = np.sqrt(overlap([400 * batch], [w], [400 * batch], [w])[0, 0])
    bound = mix.residual * norm * np.sqrt((walk.numpy() ** 2).sum(0) * batch)
    assert (error < bound).all()
    naive = min(np.abs(kept[400 * batch, other] - kept[400 * batch, w]).max() for other in (0.05, 0.10))
    assert error.max() < naive / 3, "nearer than any that was kept"
