"""Distances between images: against numbers worked out by hand, and their gradients where images agree."""

import math

import pytest
import torch

from cmtool.errors import UsageError
from cmtool.objectives.distances import (
    METRICS,
    huber_constant,
    l1,
    l2,
    l2_32,
    metric_called,
    pseudo_huber,
    pseudo_huber_of,
)

A = torch.tensor([[[[3.0, 0.0], [-4.0, 0.0]]], [[[1.0, 1.0], [1.0, 1.0]]]], dtype=torch.float64)
B = torch.zeros_like(A)


def test_distances_of_two_small_images():
    assert l1(A, B).tolist() == [7 / 4, 1.0]
    assert l2(A, B).tolist() == [25 / 4, 1.0]
    assert pseudo_huber_of(12.0)(A, B).tolist() == pytest.approx([1.0, math.sqrt(148) - 12], rel=1e-14)
    assert pseudo_huber_of(0.0)(A, B).tolist() == pytest.approx([5.0, 2.0], rel=1e-15)


@pytest.mark.parametrize(
    ("shape", "c"), [((3, 32, 32), 0.02993), ((3, 64, 64), 0.05986), ((3, 256, 256), 0.23944)], ids=["32", "64", "256"]
)
def test_constant_of_the_pseudo_huber_distance_grows_with_the_image(shape, c):
    assert huber_constant(torch.zeros(1, *shape)) == pytest.approx(c, abs=6e-6)


def test_pseudo_huber_is_half_the_square_near_and_the_norm_far():
    c = huber_constant(A)
    near, far = 1e-3 * c, 1e3
    assert pseudo_huber(near * A, B).tolist() == pytest.approx(
        [25 * near**2 / (2 * c), 4 * near**2 / (2 * c)], rel=1e-4
    )
    assert pseudo_huber(far * A, B).tolist() == pytest.approx([5 * far - c, 2 * far - c], rel=1e-9)


@pytest.mark.parametrize("distance", [*METRICS.values(), pseudo_huber_of(0.0)], ids=[*METRICS, "norm"])
def test_gradient_is_that_of_finite_differences_and_zero_where_the_images_agree(distance):
    a = A.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda a: distance(a, 0.3 * torch.ones_like(B)), a)
    (slope,) = torch.autograd.grad(distance(a, A).sum(), a)
    assert torch.equal(slope, B)


@pytest.mark.parametrize("distance", [*METRICS.values(), pseudo_huber_of(0.0)], ids=[*METRICS, "norm"])
def test_each_image_has_its_own_distance(distance):
    """A distance is one number an image, symmetric, and most see the pixels of points and of images alike."""
    assert torch.equal(torch.cat([distance(A[:1], B[:1]), distance(A[1:], B[1:])]), distance(A, B))
    assert torch.equal(distance(A, B), distance(B, A))
    if distance is not l2_32:  # which resizes
        assert torch.equal(distance(A.flatten(1), B.flatten(1)), distance(A, B))


def test_l2_32_resizes_first():
    """A checkerboard of 64 pixels is grey at 32, and steps of 32 pixels stay as they are."""
    board = (torch.arange(64)[:, None] + torch.arange(64)) % 2
    board = board.double().expand(1, 3, 64, 64)
    assert l2_32(board, torch.full_like(board, 0.5)).tolist() == [0.0]
    assert l2(board, torch.full_like(board, 0.5)).tolist() == [0.25]
    small = board[..., :32, :32]
    assert torch.equal(l2_32(small, 0 * small), l2(small, 0 * small))
    with pytest.raises(UsageError, match="l2-32 compares images"):
        l2_32(A.flatten(1), B.flatten(1))


def test_an_unknown_metric_is_named_with_the_nearest():
    assert metric_called("l2") is l2
    with pytest.raises(UsageError, match="unknown metric 'pseudo-hubr'") as caught:
        metric_called("pseudo-hubr")
    assert caught.value.hint == "did you mean 'pseudo-huber'?"
