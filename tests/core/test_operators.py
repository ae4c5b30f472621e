"""Editing tasks: invertible maps that keep what is known."""

import pytest
import torch
from oracles import Gaussian

from cmtool.core.editing.operators import LUMA, Operator, colorize, denoise, inpaint, orthogonal, stroke, superres
from cmtool.core.noise import Noise
from cmtool.core.sampling.loops import multistep
from cmtool.errors import UsageError

SEEDS = range(5)


def images(seed: int, shape=(2, 3, 16, 16)) -> torch.Tensor:
    return Noise([seed] * shape[0]).normal(shape[1:], seed).double().tanh() if seed else torch.zeros(shape).double()


def others(seed: int, shape=(2, 3, 16, 16)) -> torch.Tensor:
    return 3 * Noise(range(100, 100 + shape[0])).normal(shape[1:], seed).double()


def mask(seed: int) -> torch.Tensor:
    return (Noise([seed, seed + 1]).normal((1, 16, 16)) > 0).double()


def grey(x: torch.Tensor) -> torch.Tensor:
    return torch.einsum("bchw,c->bhw", x, torch.tensor(LUMA, dtype=x.dtype))


def small(x: torch.Tensor, factor: int) -> torch.Tensor:
    return torch.nn.functional.avg_pool2d(x, factor)


def tasks(y: torch.Tensor, seed: int) -> dict[str, Operator]:
    return {
        "inpaint": inpaint(y, mask=mask(seed)),
        "colorize": colorize(y),
        "superres-2": superres(y, factor=2),
        "superres-8": superres(y, factor=8),
        "superres-16": superres(y, factor=16),
        "denoise": denoise(y),
        "stroke": stroke(y),
    }


NAMES = list(tasks(images(0), 0))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", SEEDS)
def test_inverse_undoes_forward_and_both_keep_lengths(name, seed):
    task, x = tasks(images(seed), seed)[name], others(seed)
    assert torch.allclose(task.inverse(task.forward(x)), x, rtol=0, atol=1e-12)
    assert task.forward(x).norm().item() == pytest.approx(x.norm().item(), rel=1e-12)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", SEEDS)
def test_impose_takes_the_known_part_of_the_reference_and_the_unknown_part_of_x(name, seed):
    y, x = images(seed), others(seed)
    task = tasks(y, seed)[name]
    edited, omega = task.impose(x), task.unknown.double()
    want = task.forward(y) * (1 - omega) + task.forward(x) * omega
    assert torch.allclose(task.forward(edited), want, rtol=0, atol=1e-12)
    assert torch.allclose(task.impose(edited), edited, rtol=0, atol=1e-12)
    assert torch.allclose(task.known_part(edited), task.known_part(y), rtol=0, atol=1e-12)
    assert torch.allclose(task.impose(y), y, rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_white_is_filled_in_and_black_is_kept_exactly(seed):
    y, x, white = images(seed), others(seed), mask(seed)
    edited = inpaint(y, mask=white).impose(x)
    assert torch.equal(edited, torch.where(white.bool(), x, y))
    assert torch.equal(inpaint(y, mask=torch.ones(1, 1, 16, 16)).impose(x), x)
    assert torch.equal(inpaint(y, mask=torch.zeros(1, 1, 16, 16)).impose(x), y)


@pytest.mark.parametrize("seed", SEEDS)
def test_colorized_images_have_the_grey_values_of_the_reference(seed):
    y, x = images(seed), others(seed)
    task = colorize(y)
    assert torch.allclose(grey(task.impose(x)), grey(y), rtol=0, atol=1e-12)
    assert torch.allclose(grey(task.start), grey(y), rtol=0, atol=1e-12)
    monochrome = grey(y)[:, None].expand(-1, 3, -1, -1) / sum(LUMA)
    assert torch.allclose(colorize(monochrome).impose(x), task.impose(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("factor", [2, 4, 8, 16])
@pytest.mark.parametrize("seed", SEEDS)
def test_enlarged_images_have_the_small_image_of_the_reference(seed, factor):
    y, x = images(seed), others(seed)
    task = superres(y, factor=factor)
    assert torch.allclose(small(task.impose(x), factor), small(y, factor), rtol=0, atol=1e-12)
    blocks = small(y, factor).repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    assert torch.allclose(task.start, blocks, rtol=0, atol=1e-12)


def test_superres_on_oblong_images():
    y, x = images(1, (2, 1, 8, 12)), others(1, (2, 1, 8, 12))
    task = superres(y, factor=4)
    assert torch.allclose(small(task.impose(x), 4), small(y, 4), rtol=0, atol=1e-12)
    assert torch.allclose(task.inverse(task.forward(x)), x, rtol=0, atol=1e-12)


def test_the_grey_matrix_is_the_recorded_one():
    recorded = torch.tensor([[0.4471, -0.8204, 0.3563], [0.8780, 0.4785, 0.0], [0.1705, -0.3129, -0.9343]]).double()
    q = orthogonal(torch.tensor(LUMA, dtype=torch.float64))
    sign = (q * recorded).sum(0).sign()  # which way a free coordinate points is arbitrary
    assert sign[0] == 1
    assert torch.allclose(q * sign, recorded, rtol=0, atol=1.1e-4)


@pytest.mark.parametrize("d", [3, 4, 16, 64])
def test_orthogonal_matrices_begin_with_the_given_direction(d):
    first = torch.linspace(0.1, 1.0, d, dtype=torch.float64)
    q = orthogonal(first)
    assert torch.allclose(q.T @ q, torch.eye(d, dtype=torch.float64), rtol=0, atol=1e-13)
    assert torch.allclose(q[:, 0], first / first.norm(), rtol=1e-13)
    even = orthogonal(torch.ones(d, dtype=torch.float64))[:, 0]
    assert torch.allclose(even, torch.full_like(even, d**-0.5), rtol=1e-13)


@pytest.mark.parametrize("name", NAMES[:5])
def test_a_whole_walk_keeps_the_known_part_in_single_precision(name):
    y = images(3).float()
    task, noise, model = tasks(y, 3)[name], Noise([5, 6]), Gaussian(torch.zeros(3, 16, 16), 0.5).student(0.002)
    levels = torch.tensor([80.0, 5.0, 0.5])
    x = task.start + 80 * noise.normal((3, 16, 16))
    edited = x
    for edited in multistep(lambda *a: model(*a).float(), x, levels, noise, impose=task.impose, sigma_min=0.002):
        assert torch.allclose(task.known_part(edited), task.known_part(y), rtol=0, atol=1e-5)
    if name == "inpaint":
        assert torch.equal(edited[mask(3).expand_as(y) == 0], y[mask(3).expand_as(y) == 0])


def test_where_walks_begin():
    y = images(2)
    assert colorize(y).level is None
    assert inpaint(y, mask=mask(2)).level == superres(y).level == 5.0
    assert torch.equal(inpaint(y, mask=mask(2)).start, y * (1 - mask(2)))
    clean, painting = denoise(y, level=0.4), stroke(y)
    assert (clean.level, clean.noisy, painting.level, painting.noisy) == (0.4, True, 5.38, False)
    x = others(2)
    for task in (clean, painting):
        assert torch.equal(task.start, y)
        assert torch.equal(task.impose(x), x)  # nothing is known, and the painting must survive (algorithm 4 erases it)


@pytest.mark.parametrize(
    "task",
    [
        lambda: inpaint(images(0)),
        lambda: colorize(images(0, (1, 1, 8, 8))),
        lambda: superres(images(0), factor=3),
        lambda: superres(images(0), factor=1),
        lambda: superres(images(0, (1, 3, 16, 12)), factor=8),
    ],
    ids=["no mask", "grey model", "factor 3 of 16", "factor 1", "12 pixels by 8"],
)
def test_impossible_tasks_are_mistakes_of_usage(task):
    with pytest.raises(UsageError) as caught:
        task()
    assert caught.value.code == 2
