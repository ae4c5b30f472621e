"""Edits by jumps, along the ODE and down the reverse equation, against what is known exactly of Gaussians."""

import pytest
import torch
from clouds import Cloud
from oracles import AnisotropicGaussian, Gaussian

from cmtool.core.editing.constrained import clip_keeping_known, edit
from cmtool.core.editing.deblur import blur_image, cosines, deblur
from cmtool.core.editing.operators import (
    Operator,
    colorize,
    denoise,
    estimate_sigma,
    inpaint,
    outpaint,
    superres,
)
from cmtool.core.noise import Noise
from cmtool.core.process import EDM, VE, VP
from cmtool.core.sampling.langevin import AnnealedLangevinSampler
from cmtool.core.sampling.loops import last
from cmtool.core.sampling.predictor_corrector import ALD, ReverseSDESampler
from cmtool.core.sampling.samplers import MultistepSampler, ODESampler
from cmtool.core.sampling.sde import ReverseDiffusion
from cmtool.core.sigma_schedules import append_zero, karras
from cmtool.core.solvers.runge_kutta import euler, heun
from cmtool.errors import UsageError

LEVELS = karras(12, 0.2, 5.0)
TIMES = torch.linspace(1, 0.01, 12, dtype=torch.float64)
WALKS = {
    "jumps": MultistepSampler(LEVELS, 0.002, clip=True),
    "ode": ODESampler(append_zero(LEVELS), heun()),
    "edm": ReverseSDESampler(EDM(), LEVELS, ReverseDiffusion(), ALD(0.1)),
    "vp": ReverseSDESampler(VP(), TIMES, ReverseDiffusion(), ALD(0.1)),
    "ve": ReverseSDESampler(VE(), TIMES, ReverseDiffusion()),
}


def images(seed: int, shape=(2, 3, 8, 8)) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1


def whole(y: torch.Tensor) -> dict[str, Operator]:
    mask = (images(9, (2, 1, 8, 8)) > 0).double()
    return {
        "inpaint": inpaint(y, mask=mask),
        "outpaint": outpaint(y, margin=(1, 2, 3, 0)),
        "colorize": colorize(y),
        "superres": superres(y, factor=4),
        "deblur": deblur(blur_image(y, 1.0), blur=1.0),
    }


@pytest.mark.parametrize("way", WALKS)
@pytest.mark.parametrize("task", list(whole(images(0))))
def test_every_way_keeps_what_is_known(task, way):
    operator, data = whole(0.5 * images(1))[task], Gaussian(torch.zeros(3, 8, 8), 0.3)
    model = data.student(0.002) if way == "jumps" else data
    x = last(edit(WALKS[way], operator, model, Noise([5, 6])))
    assert float(x.abs().max()) <= 1
    torch.testing.assert_close(operator.known_part(x), operator.known_part(operator.reference), rtol=0, atol=1e-6)
    other = last(edit(WALKS[way], operator, model, Noise([5, 7])))
    assert torch.equal(x[0], other[0])
    assert not torch.allclose(x[1], other[1], atol=0.05)


def pair(n: int) -> tuple[AnisotropicGaussian, Operator, float, float]:
    """Correlated numbers of which the first is known, and the mean and variance of the second."""
    data = AnisotropicGaussian([0.1, -0.2], [[0.05, 0.036], [0.036, 0.05]])
    known = torch.full((n, 2), 0.3, dtype=torch.float64)
    same = lambda x: x  # noqa: E731
    operator = Operator(known, same, same, torch.tensor([False, True]), start=known * torch.tensor([1, 0]))
    return data, operator, -0.2 + 0.036 / 0.05 * (0.3 - 0.1), 0.05 - 0.036**2 / 0.05


@pytest.mark.parametrize("process", [EDM(), VP()], ids=["EDM", "VP"])
def test_a_score_model_gives_the_conditional_mean_and_variance(process):
    """Of 4,000 edits, within 4 standard errors and what is left of the steps."""
    n, cloud = 4000, Cloud(4000)
    data, operator, mean, variance = pair(n)
    times = process.time(karras(80, 0.02, 2.0))
    walk = ReverseSDESampler(process, times, ReverseDiffusion(), ALD(0.3, steps=6))
    x = last(edit(walk, operator, data, cloud))  # type: ignore[arg-type]
    assert torch.allclose(x[:, 0], operator.reference[:, 0], rtol=0, atol=1e-12)
    assert float(x[:, 1].mean()) == pytest.approx(mean, abs=4 * (variance / n) ** 0.5 + 0.01)
    assert float(x[:, 1].var()) == pytest.approx(variance, rel=4 * (2 / n) ** 0.5 + 0.05)


def test_without_anything_known_an_edit_along_the_ode_is_the_flow():
    data, y = Gaussian(0.2, 0.4), 0.3 * images(3)
    levels = torch.cat([karras(60, 0.002, 1.0), torch.zeros(1)])
    x = last(edit(ODESampler(levels, heun()), denoise(y, level=1.0), data, Noise([1, 2])))
    torch.testing.assert_close(x, data.flow(y, 1.0, 0.0), rtol=0, atol=2e-4)


def test_denoising_in_one_evaluation_is_the_mean_of_all_clean_images():
    data, y = Gaussian(0.2, 0.4), 0.3 * images(3)
    walk = ODESampler(torch.tensor([0.5, 0.0], dtype=torch.float64), euler())
    x = last(edit(walk, denoise(y, level=0.5), data, Noise([1, 2])))
    torch.testing.assert_close(x, 0.2 + 0.16 / (0.16 + 0.25) * (y - 0.2), rtol=0, atol=1e-12)


def test_annealed_langevin_is_refused():
    with pytest.raises(UsageError, match="cannot keep what is known"):
        list(edit(AnnealedLangevinSampler(LEVELS, 0.2, 2), colorize(images(1)), Gaussian(), Noise([1, 2])))


@pytest.mark.parametrize("task", ["inpaint", "colorize", "superres"])
def test_clipped_images_have_the_known_part_and_only_rows_out_of_range_change(task):
    operator = whole(images(4))[task]
    x = operator.impose(torch.cat([0.1 * images(5)[:1], 3 * images(6)[:1]]))
    done = clip_keeping_known(x, operator)
    assert float(done.abs().max()) <= 1
    torch.testing.assert_close(operator.known_part(done), operator.known_part(operator.reference), rtol=0, atol=0.01)
    if float(x[0].abs().max()) <= 1:
        assert torch.equal(done[0], x[0])


def test_the_cosine_transform_is_orthogonal_and_sorts_by_frequency():
    c = cosines(9)
    torch.testing.assert_close(c @ c.T, torch.eye(9, dtype=torch.float64), rtol=0, atol=1e-13)
    assert [int((row.sign().diff() != 0).sum()) for row in c] == list(range(9))


def test_a_blur_is_the_gaussian_one_with_mirrored_edges():
    from scipy.ndimage import gaussian_filter

    y = images(2, (1, 1, 24, 20))
    want = gaussian_filter(y[0, 0].numpy(), 1.3, mode="reflect", truncate=8)
    torch.testing.assert_close(blur_image(y, 1.3)[0, 0], torch.from_numpy(want), rtol=0, atol=2e-3)


def test_deblurring_knows_the_frequencies_that_passed():
    y = images(2)
    task = deblur(blur_image(y, 0.8), blur=0.8)
    torch.testing.assert_close(task.known_part(y), task.reference, rtol=0, atol=1e-10)
    assert 0.05 < float(task.unknown.double().mean()) < 0.9
    whole_again = blur_image(task.impose(3 * images(3)), 0.8)
    assert float((whole_again - blur_image(y, 0.8)).abs().max()) < 0.3 * float(images(3).abs().max())
    with pytest.raises(UsageError, match="above 0"):
        deblur(y, blur=0.0)


@pytest.mark.parametrize("sigma", [0.05, 0.3])
def test_noise_is_estimated_on_a_smooth_picture(sigma):
    ramp = torch.linspace(-1, 1, 64).expand(3, 64, 64)
    noise = Noise([3]).normal((3, 64, 64))[0]
    assert estimate_sigma(ramp + sigma * noise) == pytest.approx(sigma, rel=0.06)
    assert estimate_sigma(ramp) < 1e-6
    assert denoise((ramp + sigma * noise)[None]).level == pytest.approx(sigma, rel=0.06)
