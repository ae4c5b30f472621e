"""Augmentation: what is known exactly of the changes, of their labels, and of who takes them."""

import pytest
import torch

from cmtool.backbones.unet import unet
from cmtool.core.noise import Noise
from cmtool.errors import UsageError
from cmtool.objectives.objective import Requirements
from cmtool.training.affine import rotation, scaling, translation, warp_images
from cmtool.training.augment import CHANGES, Augment
from cmtool.training.augmentations import Spread
from cmtool.training.batches import BatchConfig, Batches

IMAGES = torch.rand(6, 3, 12, 12, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_a_map_that_moves_nothing_changes_nothing():
    assert torch.allclose(warp_images(IMAGES, scaling(1, 1).expand(6, 3, 3)), IMAGES, atol=1e-6)


def test_maps_from_pixel_to_pixel_move_pixels():
    quarter = rotation(torch.tensor([torch.pi / 2])).expand(6, 3, 3)
    turned = [(warp_images(IMAGES, quarter) - torch.rot90(IMAGES, k, (2, 3))).abs().mean() for k in (1, -1)]
    assert turned[0] < 0.08 < 0.5 < turned[1]  # not exact: the filter is not quite symmetric
    right = warp_images(IMAGES, translation(-3, 0).expand(6, 3, 3))
    assert torch.allclose(right[..., 3:], IMAGES[..., :-3], atol=1e-5)
    assert torch.allclose(right[..., :3], IMAGES[..., 1:4].flip(3), atol=1e-5)  # mirrored beyond the edge


def test_an_image_without_hints_is_as_it_was():
    augment = Augment(0.3, dict.fromkeys(CHANGES, 1.0))
    images, labels = augment(IMAGES, augment.draw(Noise(range(6))))
    nothing = (labels == 0).all(1)
    assert torch.equal(images[nothing], IMAGES[nothing])
    assert labels.shape == (6, augment.dim) == (6, 19)
    off, none = Augment(0.0, dict.fromkeys(CHANGES, 1.0))(IMAGES, augment.draw(Noise(range(6))))
    assert torch.equal(off, IMAGES)
    assert not none.any()


def test_each_change_happens_as_often_as_asked():
    augment = Augment.edm(0.25)
    flips = augment(torch.zeros(4000, 1, 2, 2), augment.draw(Noise(range(4000))))[1].ne(0).float().mean(0)
    expected = torch.tensor(
        [0.5, 0.125, *[0.25] * 4, 0.125, 0.25, 0.25]
    )  # a coin decides between two flips, and about turned axes
    assert torch.allclose(flips, expected, atol=0.03)


def column(*values: float) -> torch.Tensor:
    """One image's uniform numbers."""
    return torch.tensor([values], dtype=torch.float64)


def test_changes_go_as_far_as_asked():
    grey = torch.full((1, 3, 8, 8), 0.5)
    one = float(torch.special.ndtr(torch.tensor(1.0, dtype=torch.float64)))  # of which the normal number is 1
    brighter, labels = Augment(1.0, {"brightness": 1.0}, Spread(brightness_std=0.3))(grey, column(one, 0.0))
    assert torch.allclose(brighter, torch.tensor(0.8))
    assert torch.allclose(labels, torch.ones(1, 1))
    louder, _ = Augment(1.0, {"contrast": 1.0}, Spread(contrast_std=2.0))(grey, column(one, 0.0))
    assert torch.allclose(louder, torch.tensor(2.0))
    quarter, labels = Augment(1.0, {"hue": 1.0}, Spread(hue_max=0.5))(grey, column(1.0, 0.0))
    assert torch.allclose(quarter, grey, atol=1e-6)  # greys have no hue
    assert torch.allclose(labels, torch.tensor([[-1.0, 1.0]]), atol=1e-6)
    moved, labels = Augment(1.0, {"translate_int": 1.0}, Spread(translate_int_max=0.5))(
        IMAGES[:1], column(1.0, 0.5, 0.0)
    )
    assert torch.equal(moved[..., 6:], IMAGES[:1, ..., :-6])
    assert torch.equal(labels, torch.tensor([[1.0, 0.0]]))


def test_axes_are_turned_as_often_as_asked():
    draws = column(0.9, 0.75, 0.0, 0.4)  # how far, by half a turn, made, and whether turned
    for share, turned in ((0.3, False), (0.5, True)):
        augment = Augment(1.0, {"aniso": 1.0}, Spread(aniso_rotate_prob=share))
        along, across = augment(IMAGES[:1], draws)[1][0].abs().tolist()
        assert (across > 1 > 0.1 > along) if turned else (along > 1 > 0.1 > across)


def test_a_change_of_strength_0_is_none():
    without, zero = (
        Augment(1.0, strengths) for strengths in ({"yflip": 1.0}, {"xflip": 0.0, "yflip": 1.0, "hue": 0.0})
    )
    u = zero.draw(Noise(range(6)))
    assert (zero.draws, zero.dim) == (without.draws, without.dim) == (2, 1)
    assert torch.equal(zero(IMAGES, u)[0], without(IMAGES, u)[0])
    images, labels = Augment(1.0, {})(IMAGES, u)
    assert torch.equal(images, IMAGES)
    assert labels.shape == (6, 0)


class Data:
    shape, classes, notice = (3, 12, 12), (), "none"

    def __len__(self):
        return 6

    def __getitem__(self, i):
        return ((IMAGES[i] + 1) * 127.5).round().to(torch.uint8), None


def test_an_augmented_image_depends_on_its_number_alone():
    by_six, by_two = (
        Batches(Data(), BatchConfig(size, augment=Augment.edm(0.5)), Requirements(probes=True)) for size in (6, 2)
    )
    whole, part = by_six.at(0), by_two.at(2)
    for batch in (whole, part):
        assert batch.augment_labels is not None and batch.v is not None
    assert torch.equal(whole.augment_labels[2:4], part.augment_labels)
    assert torch.allclose(whole.x[2:4], part.x, atol=1e-6)
    assert torch.equal(whole.v[2:4], part.v)
    assert not torch.equal(whole.v, whole.z)


def test_points_are_not_augmented():
    class Points(Data):
        shape = (2,)

    with pytest.raises(UsageError, match="points"):
        Batches(Points(), BatchConfig(2, augment=Augment.edm()))


def test_the_network_takes_augment_labels_and_none_are_zeros():
    torch.manual_seed(0)
    net = unet((3, 8, 8), 0, model_channels=16, channel_mult=(1,), num_blocks=1, augment_dim=9)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    x, c = torch.randn(2, 3, 8, 8), torch.zeros(2)
    assert torch.equal(net(x, c, None), net(x, c, None, torch.zeros(2, 9)))
    assert not torch.allclose(net(x, c, None), net(x, c, None, torch.ones(2, 9)))
