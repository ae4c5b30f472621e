import json

import numpy as np
import pytest
import torch
from PIL import Image
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
    assert (document["ends"], document["frames"]) == (["3", "17"], 5)
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
    well("interp", "3", "17", "-n", "4", "--class", "5", "-m", trained["tuned"], "-o", tmp_path / "i.npz")
    with np.load(tmp_path / "i.npz") as archive:
        assert archive["arr_1"].tolist() == [5, 5, 5, 5]
        assert archive["arr_0"].shape == (4, 8, 8, 1)


def test_a_seed_to_itself_stands_still(well, rgb, tmp_path):
    well("interp", "3", "3", "-n", "3", "-m", rgb, "-o", tmp_path / "i")
    assert len({path.read_bytes() for path in (tmp_path / "i").glob("*.png")}) == 1


def test_a_grid_has_samples_in_its_corners(well, trained, tmp_path):
    well("interp", "3", "17", "20", "31", "-n", "4", "--rows", "3", "-m", trained["student"], "-o", tmp_path / "i")
    well("sample", "--seeds", "3,17,20,31", "-m", trained["student"], "-o", tmp_path / "s")
    frames, samples = listing(tmp_path / "i"), listing(tmp_path / "s")
    assert len(frames) == 14  # with a manifest and labels
    for frame, seed in ((0, 3), (3, 17), (8, 20), (11, 31)):
        assert frames[f"{frame:08d}.png"] == samples[f"{seed:08d}.png"]
    labels = dict(json.loads(frames["dataset.json"])["labels"])
    assert [labels[f"{i:08d}.png"] for i in range(12)] == [3, 3, 7, 7, 3, 3, 7, 7, 0, 0, 1, 1]


@pytest.mark.parametrize("suffix", ["webp", "gif"])
def test_an_animation(well, rgb, tmp_path, suffix):
    well("interp", "3", "7", "-n", "5", "-m", rgb, "-o", tmp_path / f"a.{suffix}", "--fps", "10")
    with Image.open(tmp_path / f"a.{suffix}") as image:
        assert (image.n_frames, image.size) == (5, (256, 256))


def test_images_come_back_along_the_flow_of_a_score_model(well, trained, tmp_path):
    """Up in 40 steps and down in 40: the ends are the images, to a grey level or two."""
    well("sample", "--seeds", "3,17", "-m", trained["teacher"], "-o", tmp_path / "s")
    ends = [tmp_path / "s" / f"{seed:08d}.png" for seed in (3, 17)]
    argv = [*ends, "-n", "3", "--steps", "40", "--class", "3", "-m", trained["teacher"]]
    document = json.loads(well("interp", *argv, "-o", tmp_path / "i", "--json"))
    assert all(found is None or found > 30 for found in document["returned"].values()), "null: to the last bit"
    frames = [pixels(tmp_path / "i" / f"0000000{i}.png").astype(int) for i in range(3)]
    assert np.abs(frames[0] - pixels(ends[0])).max() <= 16
    assert np.abs(frames[1] - frames[0]).max() > 16


def test_a_student_walks_from_an_image_to_a_seed(well, trained, tmp_path):
    well("sample", "--seeds", "3,17", "-m", trained["student"], "-o", tmp_path / "s")
    argv = [tmp_path / "s" / "00000003.png", "17", "-n", "3", "--class", "7", "-m", trained["student"]]
    searched = json.loads(well("interp", *argv, "-o", tmp_path / "i", "--json"))["returned"]
    assert min(searched.values()) > 12
    last = (tmp_path / "i" / "00000002.png").read_bytes()
    assert last == (tmp_path / "s" / "00000017.png").read_bytes()
    led = json.loads(well("interp", *argv, "--encoder", trained["teacher"], "-o", tmp_path / "j", "--json"))
    assert set(led["returned"]) == set(searched)
    assert (tmp_path / "j" / "00000002.png").read_bytes() == last
