"""The drawn pictures: made by (seed, index), right in area and light, alike at all sizes, coloured by structure."""

from math import pi

import numpy as np
import pytest
import torch

from cmtool.datasets.figures import FIGURES, Pose
from cmtool.datasets.render import Part, View, paint
from cmtool.datasets.shapes import shapes
from cmtool.errors import UsageError
from cmtool.options import registry

LUMA = np.float32([0.299, 0.587, 0.114])


def pictures(indices, **options):
    images, labels = shapes(**options).batch(indices)
    return images.numpy().astype(np.float32), labels.numpy()


def luma(images):
    return np.tensordot(LUMA, images, axes=(0, 1))


def white(field, **options):
    """How much of the frame [-1, 1]^2 a field covers, drawn in white on black at several places and turns."""
    rng = np.random.default_rng(0)
    cx, cy, turn = (rng.uniform(-0.1, 0.1, (50, 1, 1)).astype(np.float32) * k for k in (1, 1, 30))
    size = options.pop("size", 32)
    centre = (np.arange(size, dtype=np.float32) + 0.5) * (2 / size) - 1
    x, y = np.meshgrid(centre, -centre)
    x, y = (np.cos(turn) * (x - cx) + np.sin(turn) * (y - cy), np.cos(turn) * (y - cy) - np.sin(turn) * (x - cx))
    view = View(x, y, np.full_like(cx, 2 / size), (0 * cx, 0 * cx, 1 + 0 * cx))
    part = Part(field, np.ones((50, 3, 3), np.float32), raised=False, **options)
    return paint(np.zeros((50, 3, size, size), np.float32), view, [part])[:, 0].mean((1, 2)) * 4


def test_an_image_depends_on_its_seed_and_index_alone():
    data = shapes(seed=3)
    order = np.random.default_rng(0).permutation(300)
    whole, labels = data.batch(range(300))
    shuffled, _ = data.batch(order)
    assert torch.equal(whole[order], shuffled)
    assert torch.equal(whole[17:24], data.batch(range(17, 24))[0])
    for i in range(0, 300, 29):
        image, label = data[i]
        assert torch.equal(image, whole[i])
        assert label == labels[i] == i % 10
    assert torch.equal(shapes(seed=3, count=10)[9][0], whole[9])
    assert torch.equal(data[-1][0], data[len(data) - 1][0])


def test_other_seeds_and_indices_give_other_pictures():
    images = torch.cat([shapes(seed=s).batch(range(200))[0] for s in (0, 1)])
    assert len({image.numpy().tobytes() for image in images}) == 400


@pytest.mark.parametrize("size", [16, 32, 64])
@pytest.mark.parametrize("radius", [0.62, 0.8])
def test_the_area_of_a_disc(size, radius):
    areas = white(lambda x, y: np.hypot(x, y) - radius, size=size)
    assert areas == pytest.approx(pi * radius**2, rel=0.005)


def test_the_area_of_a_cube_is_that_of_its_three_faces():
    form = np.linspace(0, 1, 50, dtype=np.float32)[:, None, None]
    yaw = 0.4 + 0.77 * form[:, 0, 0]
    faces = 0.75**0.5 * (np.sin(yaw) + np.cos(yaw)) + 0.5
    [part] = FIGURES["cube"](Pose(form, form, form))
    shrunk = white(lambda x, y: part.field(x * 1.2, y * 1.2) / 1.2, size=64)
    # The rounding of the six corners takes a little away.
    assert shrunk == pytest.approx((2 * 0.68 / 1.2) ** 2 * faces, rel=0.01)


def test_the_light_on_a_ball_is_that_of_a_sphere():
    centre = (np.arange(64, dtype=np.float32) + 0.5) / 32 - 1
    x, y = (axis[None] for axis in np.meshgrid(centre, -centre))
    light = tuple(np.full((1, 1, 1), v, np.float32) for v in (0.48, 0.36, 0.8))
    ramp = np.repeat(np.float32([0, 0.5, 1])[None, :, None], 3, axis=2)  # colour = light
    view = View(x, y, np.full((1, 1, 1), 1 / 32, np.float32), light)
    part = Part(lambda x, y: np.hypot(x, y) - 0.9, ramp, 0.9, raised=False)
    image = paint(np.zeros((1, 3, 64, 64), np.float32), view, [part])[0, 0]
    inside = np.hypot(x, y)[0] < 0.85
    nx, ny = x[0] / 0.9, y[0] / 0.9
    nz = np.sqrt(np.maximum(1 - nx**2 - ny**2, 0))
    expected = (0.5 + 0.5 * (0.48 * nx + 0.36 * ny + 0.8 * nz)) ** 2
    assert np.abs(image - expected)[inside].max() < 0.006


@pytest.mark.parametrize(("large", "small"), [(64, 32), (32, 16)])
def test_the_same_picture_at_every_size(large, small):
    fine, _ = pictures(range(200), size=large)
    coarse, _ = pictures(range(200), size=small)
    mean = fine.reshape(200, 3, small, large // small, small, large // small).mean((3, 5))
    psnr = 10 * np.log10(255**2 / ((coarse - mean) ** 2).mean((1, 2, 3)))
    assert psnr.min() > 30  # measured: 34 at 64 -> 32, 31 at 32 -> 16


def test_grey_pictures_of_16_pixels_tell_the_classes():
    images, labels = pictures(range(2000), size=16)
    grey = luma(images).reshape(2000, -1)
    centroids = np.stack([grey[:1000][labels[:1000] == k].mean(0) for k in range(10)])
    nearest = ((grey[1000:, None] - centroids) ** 2).sum(-1).argmin(1)
    assert (nearest == labels[1000:]).mean() > 0.95  # measured: 0.976


def test_colour_follows_structure():
    """The class, the place and the grey 5 x 5 patch explain the colour of a pixel they were not fitted to."""
    images, labels = pictures(range(600))
    y = luma(images / 255)
    chroma = np.stack([images[:, c] / 255 - y for c in (0, 2)], -1)[:, 2:-2, 2:-2].reshape(600, -1, 2)
    windows = np.lib.stride_tricks.sliding_window_view(y, (5, 5), axis=(1, 2)).reshape(600, -1, 25)
    place = np.indices((28, 28)).reshape(2, -1).T / 14 - 1
    known = np.concatenate([windows, np.broadcast_to(place, (600, *place.shape))], -1).astype(np.float32)
    rng, missed, total = np.random.default_rng(0), 0.0, 0.0
    for k in range(10):
        rows = np.flatnonzero(labels == k)
        fit, test = rows[:40], rows[40:]
        some = rng.choice(len(test) * 784, 200, replace=False)
        asked, truth = known[test].reshape(-1, 27)[some], chroma[test].reshape(-1, 2)[some]
        stored = known[fit].reshape(-1, 27)
        distance = (stored**2).sum(1) - 2 * asked @ stored.T
        nearest = np.argpartition(distance, 5, axis=1)[:, :5]
        guess = chroma[fit].reshape(-1, 2)[nearest].mean(1)
        missed += ((guess - truth) ** 2).sum()
        total += ((truth - chroma.reshape(-1, 2).mean(0)) ** 2).sum()
    assert 1 - missed / total > 0.9  # measured: R^2 = 0.93


def test_the_figure_fills_most_of_the_frame_and_the_range_of_tones():
    images, _ = pictures(range(500))
    border = np.concatenate([images[:, :, 0], images[:, :, -1]], -1)
    assert 130 < border.mean() < 230
    assert images.min() < 25
    assert images.max() > 250
    assert 0.3 < (images / 127.5 - 1).std() < 0.5


def test_what_cannot_be_drawn_is_said():
    with pytest.raises(UsageError, match="reads nothing"):
        shapes("/data")
    for wrong in ({"size": 0}, {"count": 0}, {"seed": -1}):
        with pytest.raises(UsageError):
            registry.build("datasets", {"name": "shapes", **wrong}, None)
    with pytest.raises(IndexError):
        shapes(count=5)[5]
