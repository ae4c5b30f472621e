"""Predictor-corrector walks: their order, their ends, their rows, and editing in noise."""

import pytest
import torch
from clouds import Cloud
from oracles import AnisotropicGaussian, Gaussian

from cmtool.core.discrete_processes import NCSN
from cmtool.core.editing.constrained import ConstrainedUpdate
from cmtool.core.editing.operators import Operator, colorize, inpaint
from cmtool.core.noise import STEP, Noise
from cmtool.core.process import VE, VP, SubVP
from cmtool.core.sampling.loops import CountNFE, last
from cmtool.core.sampling.predictor_corrector import ALD, Langevin, solve_reverse_sde
from cmtool.core.sampling.sde import (
    Ancestral,
    EulerMaruyama,
    ReverseDiffusion,
    ReverseSDE,
    native_initial_noise,
    score_function,
)

TIMES = torch.linspace(1, 0.01, 9, dtype=torch.float64)
DATA = Gaussian(0.4, 0.3)


def begin(noise, process=VP(), shape=(2,)):  # noqa: B008 - processes are values
    return native_initial_noise(noise, shape, process, TIMES[0])


def test_a_step_corrects_first_and_then_predicts():
    noise, process, model = Noise([3, 4]), VP(), CountNFE(DATA)
    x = begin(noise)
    walk = list(solve_reverse_sde(ReverseSDE.of(model, process, noise), x, TIMES, EulerMaruyama(), ALD(0.1, steps=2)))
    assert len(walk) == 8
    assert model.calls == 8 * 3
    sde = ReverseSDE(process, score_function(DATA, process), noise)
    mended, _ = ALD(0.1, steps=2)(sde, x, TIMES[0], TIMES[1])
    assert torch.equal(walk[0], EulerMaruyama()(sde, mended, TIMES[0], TIMES[1])[0])


def test_the_last_step_leaves_its_noise_away_if_asked():
    noise, process = Noise([3, 4]), VP()
    ends = [
        last(
            solve_reverse_sde(
                ReverseSDE.of(DATA, process, noise), begin(noise), TIMES, ReverseDiffusion(), denoise=denoise
            )
        )
        for denoise in (True, False)
    ]
    _, b = process.transition(TIMES[-2], TIMES[-1])
    assert torch.allclose(ends[1] - ends[0], b * noise.normal((2,), STEP + 7).double(), atol=1e-7)


@pytest.mark.parametrize("predictor", [EulerMaruyama(), ReverseDiffusion(), Ancestral()], ids=repr)
@pytest.mark.parametrize("corrector", [None, Langevin(), ALD()], ids=repr)
def test_a_row_depends_on_its_seed_alone(predictor, corrector):
    def walk(seeds):
        noise = Noise(seeds)
        x = begin(noise, SubVP(), (3, 2, 2))
        return last(solve_reverse_sde(ReverseSDE.of(DATA, SubVP(), noise), x, TIMES, predictor, corrector))

    together = walk([11, 7, 90])
    assert torch.equal(walk([90, 11]), together[[2, 0]])
    assert not torch.equal(together[0], together[1])


def test_labels_reach_the_model():
    def model(x, sigma, labels=None):
        return labels[:, None].expand_as(x).double()

    ladder = NCSN.geometric(20)
    noise, times = Noise([1, 2]), torch.arange(20, -1, -1, dtype=torch.float64)
    x = native_initial_noise(noise, (2,), ladder, times[0]).double()
    labels = torch.tensor([3, 5])
    x = last(solve_reverse_sde(ReverseSDE.of(model, ladder, noise, labels), x, times, Ancestral()))
    assert torch.allclose(x, torch.tensor([[3.0, 3.0], [5.0, 5.0]]).double(), atol=1e-12)


def images(seed: int) -> torch.Tensor:
    return torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1


@pytest.mark.parametrize("process", [VE(), VP()], ids=["VE", "VP"])
def test_what_is_known_follows_its_own_noise_and_ends_clean(process):
    mask, noise, reference = torch.zeros(1, 1, 4, 4), Noise([5, 6]), images(1)
    mask[..., :2, :] = 1  # the upper half is unknown
    operator = inpaint(reference, mask=mask)
    predictor, corrector = (
        ConstrainedUpdate(ReverseDiffusion(), operator),
        ConstrainedUpdate(ALD(0.1), operator, stays=True),
    )
    x = begin(noise, process, (3, 4, 4)).double()
    walk = list(solve_reverse_sde(ReverseSDE.of(DATA, process, noise), x, TIMES, predictor, corrector))
    for k, x in enumerate(walk[:-1]):
        z = noise.normal((3, 4, 4), STEP + 4 * k + 3).double()  # of four draws a step the last
        want = process.scale(TIMES[k + 1]) * reference + process.deviation(TIMES[k + 1]) * z
        assert torch.allclose(x[:, :, 2:], want[:, :, 2:], rtol=1e-12)
        assert not torch.allclose(x[:, :, :2], want[:, :, :2])
    assert torch.equal(walk[-1][:, :, 2:], (process.scale(TIMES[-1]) * reference)[:, :, 2:])


def test_a_corrector_holds_what_is_known_at_the_time_it_stays_at():
    process, reference, (t, s) = VP(), images(1), TIMES[3:5]
    operator, noise = inpaint(reference, mask=torch.zeros(1, 1, 4, 4)), Noise([5, 6])
    sde = ReverseSDE(process, score_function(DATA, process), noise)
    x, mean = ConstrainedUpdate(ALD(0.1), operator, stays=True)(sde, images(2), t, s)
    z = noise.normal((3, 4, 4), STEP + 1).double()
    assert torch.allclose(x, process.scale(t) * reference + process.deviation(t) * z, rtol=1e-12)
    assert torch.allclose(mean, process.scale(t) * reference, rtol=1e-12)


def test_a_colorized_picture_has_the_grey_of_the_reference():
    reference, noise = images(2), Noise([5, 6])
    operator = colorize(reference)
    times = torch.linspace(1, 1e-5, 30, dtype=torch.float64)
    x = begin(noise, VE(), (3, 4, 4)).double()
    held = ConstrainedUpdate(ReverseDiffusion(), operator)
    x = last(solve_reverse_sde(ReverseSDE.of(DATA, VE(), noise), x, times, held))
    luma = torch.tensor([0.2989, 0.5870, 0.1140]).double().view(1, 3, 1, 1)
    assert torch.allclose((luma * x).sum(1), (luma * reference).sum(1), atol=1e-6)
    assert float((x - reference).abs().mean()) > 0.1


def test_the_unknown_follows_from_the_known_with_enough_correction():
    """Correlated pairs of which the first is known: the second has the conditional mean and variance."""
    n, pair = 2000, AnisotropicGaussian([0.1, -0.2], [[0.25, 0.18], [0.18, 0.25]])
    known = torch.full((n, 2), 0.6, dtype=torch.float64)
    same = lambda x: x  # noqa: E731
    operator = Operator(known, same, same, torch.tensor([False, True]), start=known)
    process, times, cloud = VE(), torch.linspace(1, 0.1, 100, dtype=torch.float64), Cloud(n)
    predictor, corrector = (
        ConstrainedUpdate(ReverseDiffusion(), operator),
        ConstrainedUpdate(ALD(0.3, steps=6), operator, stays=True),
    )
    x = native_initial_noise(cloud, (2,), process, times[0])  # type: ignore[arg-type]
    x = last(solve_reverse_sde(ReverseSDE.of(pair, process, cloud), x, times, predictor, corrector))  # type: ignore[arg-type]
    assert torch.equal(x[:, 0], known[:, 0])
    mean, variance = -0.2 + 0.18 / 0.25 * (0.6 - 0.1), 0.25 - 0.18**2 / 0.25
    assert float(x[:, 1].mean()) == pytest.approx(mean, abs=4 * (variance / n) ** 0.5 + 0.02)
    assert float(x[:, 1].var()) == pytest.approx(variance, rel=4 * (2 / n) ** 0.5 + 0.05)
