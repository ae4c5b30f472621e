"""``info`` of images: what it prints, what it takes for images, and what wins where a word could mean two things."""

import json

import numpy as np
import pytest
from PIL import Image

IMAGES = np.random.default_rng(5).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Six pictures in two classes, one of which is there twice, and one that is none."""
    monkeypatch.chdir(tmp_path)
    for i, image in enumerate(IMAGES):
        (tmp_path / "photos" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / "photos" / "ab"[i % 2] / f"{i}.png")
    Image.fromarray(IMAGES[0]).save(tmp_path / "photos" / "b" / "same.png")
    (tmp_path / "photos" / "b" / "x.png").write_text("no picture")
    return tmp_path / "photos"


def test_a_folder(cm, photos):
    told = cm("info", "photos")
    assert told.code == 0
    lines = told.out.splitlines()
    assert lines[0].startswith("photos: folder of 8 images, ")
    rows = dict(line.split(maxsplit=1) for line in lines[1:] if line[2] != " ")
    assert (rows["sizes"], rows["modes"], rows["classes"]) == ("8x8 7", "RGB 7", "2: a 3, b 5")
    assert (rows["duplicates"], rows["broken"]) == ("1, 1 of them of another class", "1")
    assert "               photos/a/0.png = photos/b/same.png" in lines
    assert "               photos/b/x.png is not a picture" in lines
    assert "cmtool: warning: 1 of 8 images cannot be read: photos/b/x.png is not a picture" in told.err.splitlines()
    assert "info photos  8/8 images" in told.err


def test_a_document(well, photos):
    found = json.loads(well("info", "photos", "--json"))
    size = sum(path.stat().st_size for path in photos.rglob("*") if path.is_file())
    assert (found["schema"], found["data"], found["kind"]) == ("cmtool.info/1", "photos", "folder")
    assert (found["images"], found["bytes"]) == (8, size)
    assert (found["sizes"], found["distinct_sizes"]) == ([{"width": 8, "height": 8, "images": 7}], 1)
    assert (found["modes"], found["classes"]) == ({"RGB": 7}, {"a": 3, "b": 5})
    groups = [["photos/a/0.png", "photos/b/same.png"]]
    assert found["duplicates"] == {"images": 1, "sets": 1, "other_label": 1, "groups": groups}
    assert found["broken"] == {
        "images": 1,
        "examples": [{"name": "photos/b/x.png", "reason": "photos/b/x.png is not a picture"}],
    }
    values = np.concatenate([IMAGES, IMAGES[:1]]) / 127.5 - 1
    assert found["mean"] == pytest.approx(values.mean((0, 1, 2)))
    assert found["std"] == pytest.approx(values.std((0, 1, 2)))
    assert len(found["fingerprint"]) == 64


def test_a_quick_look_decodes_nothing(well, photos, monkeypatch):
    monkeypatch.setattr("cmtool.datasets.storage.decode", None)
    found = json.loads(well("info", "photos", "--quick", "--json"))
    assert (found["images"], found["modes"], found["classes"]) == (8, {"RGB": 7}, {"a": 3, "b": 5})
    assert found["broken"]["images"] == 1
    assert found["mean"] is found["std"] is found["duplicates"] is found["fingerprint"] is None


def test_the_threads_change_nothing(well, photos):
    assert well("info", "photos", "--threads", "1") == well("info", "photos", "--threads", "3")


def test_options_of_the_data_set(well, cm, photos):
    assert json.loads(well("info", "photos", "--json", "--set", "data.labels=none"))["classes"] is None
    told = cm("info", "photos", "--set", "data.lables=none")
    assert (told.code, told.error[0]) == (2, "unknown option of data set 'folder' 'lables'")


def test_labels_that_cannot_be_used_are_a_remark(cm, photos):
    (photos / "dataset.json").write_text('{"labels": [["a/0.png", 1]]}')
    told = cm("info", "photos", "--json")
    assert told.code == 0
    document = json.loads(told.out)
    assert document["classes"] is None
    assert "has no label in dataset.json" in document["remarks"][0]
    assert document["remarks"][0] in told.err


def test_a_data_set_by_its_name(well, photos):
    assert "1,797 images" in well("info", "digits[:]").splitlines()[0]
    assert json.loads(well("info", "digits[0:10]", "--json"))["sizes"] == [{"width": 8, "height": 8, "images": 10}]
    assert well("info", "ring[:5]").splitlines()[1].split()[0] == "mean"
    page = well("info", "digits")
    assert page.startswith("digits: data set of cmtool")


def test_the_name_of_a_data_set_wins_over_a_folder(well, photos):
    photos.rename(photos.parent / "digits")
    assert well("info", "digits").startswith("digits: data set of cmtool")
    assert well("info", "./digits").startswith("./digits: folder of 8 images")
    assert well("info", "folder:digits").startswith("folder:digits: folder of 8 images")


def test_a_checkpoint_is_a_checkpoint(well, photos, rgb):
    (photos / "model.safetensors").write_bytes(rgb.read_bytes())
    assert json.loads(well("info", "photos", "--json"))["header"]["kind"] == "consistency"
    (photos / "model.safetensors").rename(photos.parent / "digits")
    assert json.loads(well("info", "digits", "--json"))["header"]["kind"] == "consistency"
    assert json.loads(well("info", "photos", "--json"))["images"] == 8


@pytest.mark.parametrize(
    ("word", "code", "sentence"),
    [
        ("nothing", 66, "there is no file nothing"),
        ("nothing.zip", 66, "there is no folder or file nothing.zip"),
        ("./nothing", 66, "there is no file nothing"),
        ("empty", 66, "there are no images in empty"),
        ("photos[9:]", 2, "photos has no images in [9:]"),
        ("broken.zip", 65, "broken.zip is not a .zip file, or is damaged: File is not a zip file"),
        ("notes.txt", 65, "notes.txt is a file, not a folder or an archive that is read"),
    ],
)
def test_what_is_not_there_or_no_data(cm, photos, word, code, sentence):
    (photos.parent / "empty").mkdir()
    (photos.parent / "broken.zip").write_text("hello")
    (photos.parent / "notes.txt").write_text("hello")
    told = cm("info", word)
    assert (told.code, told.error[0]) == (code, sentence)
