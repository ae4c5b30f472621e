"""Tiles cover a picture, agree where they overlap, and know together what each of them knows; masks and rounding."""

import pytest
import torch

from cmtool.core.editing import masks
from cmtool.core.editing.operators import LUMA, colorize, inpaint, round_keeping_sum, superres
from cmtool.core.editing.tiles import TiledNoise, cut_tiles, join_tiles, tile_corners
from cmtool.core.noise import STEP, Noise


@pytest.mark.parametrize("size", [(16, 16), (17, 16), (40, 23), (64, 100)])
@pytest.mark.parametrize("step", [1, 4])
def test_tiles_cover_everything_on_multiples_of_the_step(size, step):
    size = tuple(-(-n // step) * step for n in size)
    corners, seen = tile_corners(size, (16, 16), step), torch.zeros(size)
    for top, left in corners:
        assert top % step == left % step == 0
        seen[top : top + 16, left : left + 16] += 1
        assert top + 16 <= size[0] and left + 16 <= size[1]
    assert seen.min() >= 1
    assert len(set(corners)) == len(corners)


def test_a_picture_cut_and_joined_is_itself():
    picture = Noise([3]).normal((3, 40, 23))[0]
    corners = tile_corners((40, 23), (16, 16))
    tiles = cut_tiles(picture, corners, (16, 16))
    torch.testing.assert_close(join_tiles(tiles, corners, (40, 23)), picture, rtol=0, atol=1e-6)
    one = cut_tiles(picture[:, :16, :16], [(0, 0)], (16, 16))
    assert torch.equal(join_tiles(one, [(0, 0)], (16, 16)), one[0])


@pytest.mark.parametrize("task", [colorize, lambda y: superres(y, factor=4)])
def test_what_every_tile_knows_the_whole_knows(task):
    y, x = Noise([1, 2]).normal((3, 24, 40)).double() / 4
    corners = tile_corners((24, 40), (16, 16), 4)
    operator, whole = task(cut_tiles(y, corners, (16, 16))), task(y[None])
    tiles = operator.impose(cut_tiles(x, corners, (16, 16)) + Noise(range(len(corners))).normal((3, 16, 16)))
    picture = join_tiles(tiles, corners, (24, 40), 4)[None]
    torch.testing.assert_close(whole.known_part(picture), whole.known_part(y[None]), rtol=0, atol=1e-12)


def test_tiles_of_one_picture_share_their_noise_where_they_overlap():
    noise = TiledNoise([5, 5, 8], [(24, 16), (24, 16), (16, 16)], [(0, 0), (8, 0), (0, 0)])
    for stream in (0, STEP + 3):
        z = noise.normal((3, 16, 16), stream)
        assert torch.equal(z[0, :, 8:], z[1, :, :8])
        assert torch.equal(z[2], Noise([8]).normal((3, 16, 16), stream)[0])
        assert torch.equal(z[0], Noise([5]).normal((3, 24, 16), stream)[0, :, :16])


def test_masks_are_one_where_pixels_are_to_be_filled_in():
    box = masks.box(8, 10, left=2, top=3, wide=4, high=2)
    assert box.shape == (1, 1, 8, 10)
    assert box.sum() == 8
    assert box[0, 0, 3:5, 2:6].min() == 1
    border = masks.border(8, 10, 1, 2, 3, 4)
    assert (1 - border).sum() == 4 * 4
    assert border[0, 0, 1:5, 2:6].max() == 0
    drawn = masks.random(100, 100, 0.3, seed=4)
    assert float(drawn.mean()) == pytest.approx(0.3, abs=0.02)
    assert torch.equal(drawn, masks.random(100, 100, 0.3, 4))
    assert not torch.equal(drawn, masks.random(100, 100, 0.3, 5))


def test_a_feather_fades_outwards_and_leaves_the_hole_and_the_rest_alone():
    y, x = Noise([1, 2]).normal((1, 1, 9, 9)).double().tanh()
    mask = masks.feather(masks.box(9, 9, 4, 4, 1, 1), 3)
    torch.testing.assert_close(mask[0, 0, 4, 4:], torch.tensor([1, 0.75, 0.5, 0.25, 0]))
    torch.testing.assert_close(mask[0, 0].diagonal()[4:], torch.tensor([1, 0.75, 0.5, 0.25, 0]))
    edited = inpaint(y, mask=mask).impose(x)
    assert torch.equal(edited[0, 0, 4, 4], x[0, 0, 4, 4])
    torch.testing.assert_close(edited[0, 0, 4, 6], (x + y)[0, 0, 4, 6] / 2)
    assert torch.equal(edited[mask == 0], y[mask == 0])


def test_rounding_keeps_whole_sums_exactly():
    values = torch.rand(500, 16, dtype=torch.float64) * 255
    values[:, -1] += values.sum(1).round() - values.sum(1)  # may leave the range by less than 1
    values = values[(values[:, -1] >= 0) & (values[:, -1] <= 255)]
    rounded = round_keeping_sum(values, torch.ones(16))
    torch.testing.assert_close(rounded.sum(1), values.sum(1), rtol=0, atol=1e-9)
    assert torch.equal(rounded, rounded.round().clamp(0, 255))
    assert (rounded - values).abs().max() <= 1


def test_grey_values_survive_rounding():
    """Each channel by itself may round the grey value by half a level."""
    x = torch.rand(4, 3, 32, 32, dtype=torch.float64) * 2 - 1
    luma = torch.tensor(LUMA, dtype=torch.float64).view(3, 1, 1)
    want = ((x + 1) * 127.5 * luma).sum(1)
    got = (colorize(x).pixels(x).double() * luma).sum(1)
    assert (got - want).abs().mean() < 0.04
    assert (got - want).abs().max() < 0.3
