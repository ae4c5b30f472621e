import json

import numpy as np
import pytest
import torch
from tiny import listing, pixels

import cmtool
from cmtool.core.noise import START, Noise
from cmtool.core.pixels import to_pixels


@pytest.mark.parametrize("name", ["student", "teacher", "shapes"])
def test_both_ends_are_the_samples_of_their_seeds(well, trained, tmp_path, name):
    document = json.loads(well("interp", "3", "17", "-n", "5", "-m", trained[name], "-o", tmp_path / "i", "--json"))
    well("sample", "--seeds", "3,17", "-m", trained[name], "-o", tmp_path / "s")
    frames, samples = listing(tmp_path / "i"), listing(tmp_path / "s")
    assert frames["00000000.png"] == samples["00000003.png"]
    assert frames["00000004.png"] == samples["00000017.png"]
    assert len({frames[f"0000000{i}.png"] for i in range(5)}) == 5
    assert (document["seeds"], document["frames"]) == ([3, 17], 5)
    assert dict(json.loads(frames["dataset.json"])["labels"]) == {
        f"0000000{i}.png": [3, 3, 3, 7, 7][i] for i in range(5)
    }


def test_a_frame_between_is_the_image_of_the_spherical_blend(well, rgb, tmp_path):
    well("interp", "3", "7", "-n", "3", "-m", rgb, "-o", tmp_path / "i")
    a, b = Noise([3, 7]).normal((3, 16, 16), START).double()
    angle = torch.arccos((a * b).sum() / (a.norm() * b.norm()))
    z = ((a + b) * (angle / 2).sin() / angle.sin()).float()[None]
    sigma = torch.tensor([80.0], dtype=torch.float64)
    image = to_pixels(cmtool.load(rgb)(80 * z, sigma).detach())[0].permute(1, 2, 0).numpy()
    assert np.abs(pixels(tmp_path / "i" / "00000001.png").astype(int) - image).max() <= 1


def test_a_strip_holds_the_frames_side_by_side(well, rgb, tmp_path):
    well("interp", "3", "7", "-n", "4", "-m", rgb, "-o", tmp_path / "strip.png", "--steps", "2")
    well("interp", "3", "7", "-n", "4", "-m", rgb, "-o", tmp_path / "i", "--steps", "2")
    strip = pixels(tmp_path / "strip.png")
    assert strip.shape == (68, 4 * 66 + 2, 3)
    for i in range(4):
        assert np.array_equal(strip[2:66:4, 2 + 66 * i : 66 * (i + 1) : 4], pixels(tmp_path / "i" / f"0000000{i}.png"))


def test_one_class_all_the_way(well, trained, tmp_path):
    well("interp", "3", "17", "-n", "4", "--class", "5", "-m", trained["ect"], "-o", tmp_path / "i.npz")
    with np.load(tmp_path / "i.npz") as archive:
        assert archive["arr_1"].tolist() == [5, 5, 5, 5]
        assert archive["arr_0"].shape == (4, 8, 8, 1)


def test_a_seed_to_itself_stands_still(well, rgb, tmp_path):
    well("interp", "3", "3", "-n", "3", "-m", rgb, "-o", tmp_path / "i")
    assert len(set(listing(tmp_path / "i").values())) == 1
