"""``convert`` of images: one command with two uses, and files that are whole or not there."""

import json
import zipfile

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from cmtool.files import atomic

IMAGES = np.random.default_rng(8).integers(0, 256, (5, 12, 18, 3), dtype=np.uint8)


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for i, image in enumerate(IMAGES):
        Image.fromarray(image).save(tmp_path / "photos" / f"{['cat', 'dog'][i % 2]}_{i}.png")
    return tmp_path / "photos"


def fingerprint(well, name):
    return json.loads(well("info", name, "--json"))["fingerprint"]


def test_a_folder_becomes_a_zip(cm, well, photos):
    told = cm("convert", "photos", "out.zip", "--size", "8", "--labels", "filename-prefix", "--json")
    assert told.code == 0, told.err
    document = json.loads(told.out)
    assert (document["images"], document["shape"], document["classes"]) == (5, [3, 8, 8], ["cat", "dog"])
    assert document["bytes"] == (photos.parent / "out.zip").stat().st_size
    assert document["fingerprint"] == fingerprint(well, "out.zip")
    with zipfile.ZipFile(photos.parent / "out.zip") as archive:
        labels = json.loads(archive.read("dataset.json"))
        with archive.open("00000/img00000003.png") as file, Image.open(file) as image:
            assert image.size == (8, 8)
    order = ["cat_0", "cat_2", "cat_4", "dog_1", "dog_3"]
    assert labels["labels"] == [[f"00000/img{i:08d}.png", int(name[0] == "d")] for i, name in enumerate(order)]
    assert labels["class_names"] == ["cat", "dog"]
    assert "train on it with: cmtool train-score --data out.zip" in told.err


@pytest.mark.parametrize("name", ["out.zip", "out.tar", "out.npz", "out.npy"])
def test_without_resizing_the_pictures_stay_as_they_are(well, photos, name):
    well("convert", "photos", name, "--crop", "none", "--labels", "none")
    assert fingerprint(well, name) == fingerprint(well, "photos")


def test_grey_and_other_proportions(well, photos):
    well("convert", "photos", "out.tar", "--size", "6x9", "--channels", "1")
    found = json.loads(well("info", "out.tar", "--json"))
    assert (found["sizes"], found["modes"]) == ([{"width": 9, "height": 6, "images": 5}], {"grey": 5})


def test_a_part_of_a_data_set_by_name(well, photos):
    well("convert", "digits[0:40]", "out.npz")
    with np.load("out.npz") as found:
        assert found["arr_0"].shape == (40, 8, 8, 1)
        assert found["arr_1"].tolist()[:10] == list(range(10))
    assert fingerprint(well, "out.npz") == fingerprint(well, "digits[:40]")


def test_it_trains_on_what_it_packed(well, photos):
    well("convert", "photos", "out.zip", "--size", "8", "--labels", "filename-prefix")
    tiny = ["--set", "backbone.model_channels=8", "--set", "backbone.channel_mult=[1]", "--images", "8", "--batch", "4"]
    plain = ["photos", "--set", "data.size=8", "--set", "data.labels=filename-prefix"]
    weights = []
    for k, data in enumerate([["out.zip"], plain]):
        well("train-score", "--data", *data, *tiny, "--run-dir", f"run{k}")
        weights.append(load_file(photos.parent / f"run{k}" / "model.safetensors"))
    assert weights[0].keys() == weights[1].keys()
    assert all((weights[0][key] == weights[1][key]).all() for key in weights[0])


def test_nothing_is_lost(cm, well, photos):
    well("convert", "photos", "out.zip", "--size", "8")
    before = (photos.parent / "out.zip").read_bytes()
    told = cm("convert", "photos", "out.zip", "--size", "4")
    assert (told.code, told.error[0]) == (2, "out.zip exists, and this command did not make it")
    assert (photos.parent / "out.zip").read_bytes() == before
    told = cm("convert", "out.zip", "out.zip")
    assert told.error[0] == "out.zip is read by this command, which would write over it"
    well("convert", "photos", "out.zip", "--size", "8", "--overwrite")
    assert (photos.parent / "out.zip").read_bytes() == before


def test_a_damaged_picture_leaves_nothing(cm, photos):
    data = (photos / "dog_3.png").read_bytes()
    (photos / "dog_3.png").write_bytes(data[:-40])
    told = cm("convert", "photos", "out.zip", "--size", "8")
    assert told.code == 65
    assert told.error[0].startswith("photos/dog_3.png is damaged")
    assert [path.name for path in photos.parent.iterdir()] == ["photos"]


def test_a_full_disk_is_found_before(cm, photos, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: (10**9, 10**9, 100))
    monkeypatch.setattr("cmtool.pipelines.pack_data.shutil.disk_usage", lambda path: type("Usage", (), {"free": 100}))
    told = cm("convert", "photos", "out.zip", "--size", "8")
    assert told.code == 74
    assert told.error[0].startswith("there is not enough room for out.zip: it takes about 0.0 MB")
    assert not list(photos.parent.glob(f"{atomic.PREFIX}*"))


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["photos", "out.zip"], 0, ""),
        (["photos", "out.zip", "--dtype", "fp16"], 2, "--dtype is for checkpoints, and out.zip is to be written"),
        (["photos", "out.zip", "--to", "diffusers"], 2, "--to is for checkpoints, and out.zip is to be written"),
        (
            ["photos", "out.zip", "--set", "format.kind=score"],
            2,
            "--set format.OPTION is for checkpoints, and out.zip is to be written",
        ),
        (
            ["shapes-score", "out.safetensors", "--size", "8"],
            2,
            "--size is for images, which go to .zip, .tar, .npz, .npy, and out.safetensors is to be written",
        ),
        (["shapes-score", "out.zip"], 2, "shapes-score is a checkpoint, and out.zip is a file of images"),
        (["photos", "out.safetensors"], 2, "photos are images, and out.safetensors is no file of images"),
        (["digits", "out.safetensors"], 2, "digits are images, and out.safetensors is no file of images"),
        (["nothing", "out.safetensors"], 66, "there is no file nothing"),
        (["nothing", "out.zip"], 2, "unknown data set 'nothing'"),
        (["./nothing", "out.zip"], 66, "there is no folder or file nothing"),
        (["photos", "out.zip", "--size", "0"], 2, None),
        (["photos", "out.zip", "--size", "8x8x8"], 2, None),
        (["photos", "out.zip", "--channels", "2"], 2, None),
        (["digits", "out.zip", "--labels", "none"], 2, "unknown option of data set 'digits' 'labels'"),
    ],
)
def test_which_of_both_is_meant(cm, photos, arguments, code, sentence):
    told = cm("convert", *arguments)
    assert told.code == code, told.err
    if sentence:
        assert told.error[0] == sentence
