"""FD-small must put samples in order: the worse they are, the larger it is, and two halves of the truth are close."""

import hashlib
import itertools
import time

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from cmtool.datasets.digits import digits
from cmtool.datasets.shapes import shapes
from cmtool.errors import BadFile, UsageError
from cmtool.evaluation.frechet import Moments, frechet_distance
from cmtool.features import small as module
from cmtool.features.small import SHA256, WEIGHTS, small

FEATURES = small()
SHAPES = 1600
RECORDED = [5.7924, -0.9385, 9.5113, 4.5959, 7.0971, -0.3564, -1.8123, 0.6124]


def moments(images):
    seen = Moments()
    seen.update(FEATURES(images))
    return seen


class Halves:
    """Every other image is the reference, the rest are there to be spoiled."""

    def __init__(self, images, labels):
        self.reference = moments(images[::2])
        self.images, self.labels = images[1::2], labels[1::2]

    def distance(self, images):
        return frechet_distance(self.reference, moments(images))


@pytest.fixture(scope="module")
def digit_halves():
    return Halves(*digits().batch(range(1797)))


@pytest.fixture(scope="module")
def shape_halves():
    # the class is the last digit of the index: whole decades take turns
    order = np.arange(SHAPES).reshape(-1, 2, 10).transpose(0, 2, 1).reshape(-1)
    return Halves(*shapes().batch(order))


@pytest.fixture(params=["digits", "shapes"])
def halves(request):
    return request.getfixturevalue("digit_halves" if request.param == "digits" else "shape_halves")


def blurred(images, width):
    return as_bytes(gaussian_filter(images.numpy().astype(float), (0, 0, width, width)))


def noisy(images, level):
    return as_bytes(images.numpy() + level * np.random.default_rng(0).standard_normal(images.shape))


def ghosted(images, share):
    """Two pictures in one: what a model gives that averages over what it should choose from."""
    order = np.random.default_rng(0).permutation(len(images))
    return as_bytes((1 - share) * images.numpy() + share * images.numpy()[order])


def tinted(images, shift):
    return as_bytes(images.numpy() + shift * np.array([1.0, 0.0, -1.0])[:, None, None])


def repeated(images, distinct):
    return images[:distinct].repeat(len(images) // distinct, 1, 1, 1)


def as_bytes(values):
    return torch.from_numpy(np.clip(np.rint(values), 0, 255).astype(np.uint8))


def grows(halves, spoil, amounts, first):
    """Each amount is farther than the one before, and the least more than ``first`` times as far as the truth."""
    distances = [halves.distance(spoil(halves.images, amount)) for amount in amounts]
    steps = [halves.distance(halves.images) * first, *distances]
    assert all(a < b for a, b in itertools.pairwise(steps)), steps


def test_it_grows_with_blur(halves):
    grows(halves, blurred, [1.0, 1.5, 2.0, 3.0], 4)


def test_it_grows_with_noise(halves):
    grows(halves, noisy, [32, 64, 96, 128], 4)


def test_it_grows_with_missing_classes(halves):
    grows(halves, lambda images, kept: images[halves.labels < kept], [9, 7, 5, 3, 1], 2)


def test_it_grows_with_repetition(halves):
    grows(halves, repeated, [100, 50, 25], 4)


def test_it_grows_with_ghosts(halves):
    grows(halves, ghosted, [0.2, 0.35, 0.5], 4)


def test_it_grows_with_brightness_and_contrast(halves):
    grows(halves, lambda images, shift: as_bytes(images.numpy() + shift), [16, 32, 64], 4)
    grows(halves, lambda images, gain: as_bytes(images.numpy() * gain), [0.8, 0.6, 0.4], 4)


def test_it_grows_with_a_shift_of_colour(shape_halves):
    grows(shape_halves, tinted, [8, 16, 32, 64], 4)
    swapped, grey = shape_halves.images[:, [2, 1, 0]], shape_halves.images.float().mean(1, keepdim=True).round().byte()
    real = shape_halves.distance(shape_halves.images)
    assert shape_halves.distance(swapped) > 50 * real and shape_halves.distance(grey) > 50 * real


def test_halves_of_the_truth_are_close_and_other_data_are_far(digit_halves, shape_halves):
    assert digit_halves.distance(digit_halves.images) < 1.5
    assert shape_halves.distance(shape_halves.images) < 0.5
    nothing = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (500, 1, 8, 8), dtype=np.uint8))
    for halves, other in ((digit_halves, shape_halves.images), (shape_halves, digit_halves.images)):
        assert halves.distance(other) > 50 and halves.distance(nothing) > 50


def test_clean_data_give_well_conditioned_covariances(digit_halves, shape_halves):
    for halves in (digit_halves, shape_halves):
        assert torch.linalg.cond(halves.reference.covariance) < 1e6


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (3, 64, 48)])
def test_batches_do_not_matter(shape):
    images = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (100, *shape), dtype=np.uint8))
    whole = FEATURES(images)
    assert whole.shape == (100, FEATURES.dim) and whole.dtype == torch.float32
    for size in (1, 7, 64):
        assert torch.equal(torch.cat([FEATURES(part) for part in images.split(size)]), whole)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert torch.equal(FEATURES(images), whole)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)
    assert FEATURES(images[:0]).shape == (0, FEATURES.dim)


def test_the_numbers_are_those_of_the_first_day():
    ramp = torch.arange(3 * 32 * 32).reshape(1, 3, 32, 32) % 256
    expected = torch.tensor(RECORDED)
    torch.testing.assert_close(FEATURES(ramp.byte())[0, ::8], expected, rtol=1e-3, atol=1e-4)


def test_grey_counts_as_colour_and_points_are_refused():
    grey = torch.from_numpy(np.random.default_rng(2).integers(0, 256, (5, 1, 32, 32), dtype=np.uint8))
    torch.testing.assert_close(FEATURES(grey), FEATURES(grey.repeat(1, 3, 1, 1)), rtol=0, atol=1e-6)
    with pytest.raises(UsageError, match="not points"):
        FEATURES(torch.zeros(4, 2))


def test_the_file_is_small_and_a_flipped_bit_is_found(tmp_path, monkeypatch):
    contents = bytearray(WEIGHTS.read_bytes())
    assert len(contents) <= 600_000
    assert hashlib.sha256(contents).hexdigest() == SHA256 and SHA256[:16] in FEATURES.fingerprint
    contents[len(contents) // 2] ^= 1
    damaged = tmp_path / "small.safetensors"
    damaged.write_bytes(contents)
    monkeypatch.setattr(module, "WEIGHTS", damaged)
    with pytest.raises(BadFile, match="damaged"):
        small()


@pytest.mark.slow
def test_it_is_fast():
    images = torch.zeros(3000, 3, 32, 32, dtype=torch.uint8)
    started = time.perf_counter()
    FEATURES(images)
    assert len(images) / (time.perf_counter() - started) > 1500
