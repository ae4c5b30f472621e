"""``--class``, ``--classes FILE`` and the classes of data: matched by name, else by number."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from tiny import random_model

import cmtool
from cmtool.errors import UsageError
from cmtool.files.checkpoint import save
from cmtool.pipelines.inputs import class_index, class_name

FOLDERS = ("0", "1", "10", "2", "3")  # as they are sorted
ANIMALS = ("owl", "Sea Lion", "été", "crane", "crane")


@pytest.fixture(scope="session")
def called(tmp_path_factory):
    """A checkpoint of 8x8 grey images whose classes have these names."""

    def make(names, kind="consistency"):
        path = random_model(tmp_path_factory.mktemp("called") / "m.safetensors", (1, 8, 8), len(names), kind)
        model = cmtool.load(path)
        save(path, model.model, replace(model.header, data={**model.header.data, "classes": list(names)}))
        return path

    return make


@pytest.mark.parametrize(
    ("names", "klass", "label"),
    [
        (FOLDERS, "2", 3),
        (FOLDERS, "10", 2),
        (FOLDERS, "02", 3),
        (("00003", "00001", "00002"), "1", 1),
        (("class 1", "class 0"), "0", 1),
        (("1", "2", "3"), "3", 2),
        (ANIMALS, "2", 2),
        (ANIMALS, "sea_lion", 1),
        (ANIMALS, "e\u0301te\u0301", 2),
        (ANIMALS, "4", 4),
        (("1", "dog", "cat"), "1", 0),
    ],
)
def test_a_class_is_meant_by_its_name_and_then_by_its_number(called, names, klass, label):
    header = cmtool.load(called(names)).header
    assert class_index(header, klass) == label


@pytest.mark.parametrize(
    ("names", "klass", "sentence", "hint"),
    [
        (FOLDERS, "4", "there is no class 4", "classes are 0, 1, 10, 2, 3"),
        (("1", "2", "3"), "0", "there is no class 0", "classes are 1, 2, 3"),
        (("0", "1"), "7", "there is no class 7", "classes are 0 to 1"),
        (ANIMALS, "5", "there is no class 5", "classes are owl, Sea Lion, été, crane, crane"),
        (ANIMALS, "-1", "there is no class '-1'", "classes are owl, Sea Lion, été, crane, crane"),
        (ANIMALS, "²", "there is no class '²'", "classes are owl, Sea Lion, été, crane, crane"),
        (ANIMALS, "crane", "several classes are called 'crane'", "say which by its number: 3, 4"),
    ],
)
def test_a_class_that_there_is_not(called, names, klass, sentence, hint):
    with pytest.raises(UsageError) as caught:
        class_index(cmtool.load(called(names)).header, klass)
    assert (caught.value.message, caught.value.hint) == (sentence, hint)


def test_the_name_of_a_class_stands_beside_its_number(called, cm, tmp_path):
    header = cmtool.load(called(FOLDERS)).header
    assert [class_name(header, k) for k in (1, 2)] == ["1", "2 (10)"]
    told = cm("sample", "-m", called(FOLDERS), "-n", "2", "--class", "2", "-o", tmp_path / "s", "--json")
    assert "2 images of class 3 (2), 1 NFE each" in told.err
    assert json.loads(told.out)["class"] == 3
    lines = (tmp_path / "s" / "manifest.jsonl").read_text().splitlines()
    assert [json.loads(line)["class"] for line in lines] == [3, 3]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-8"])
def test_classes_of_a_file_that_an_editor_saved(called, cm, tmp_path, encoding):
    (tmp_path / "c.txt").write_bytes("2\r\n10\r\n\r\n  3 \r\n".encode(encoding))
    assert (
        cm("sample", "-m", called(FOLDERS), "-n", "4", "--classes", tmp_path / "c.txt", "-o", tmp_path / "s").code == 0
    )
    lines = (tmp_path / "s" / "manifest.jsonl").read_text().splitlines()
    assert [json.loads(line)["class"] for line in lines] == [3, 2, 4, 3]
    (tmp_path / "c.txt").write_bytes(b"\xff\xfe\x00\xd8\r")
    assert cm("sample", "-m", called(FOLDERS), "--classes", tmp_path / "c.txt").code == 2


def test_likelihood_matches_the_folders_of_the_data_by_name(called, cm, tmp_path):
    model, images = called(("moth", "ant", "bee"), "score"), np.random.default_rng(0).integers(0, 256, (3, 8, 8))
    for image, name, number in zip(images.astype(np.uint8), ("moth", "ant", "bee"), "012", strict=True):
        for folder in (tmp_path / "names" / name, tmp_path / "numbers" / number, tmp_path / "others" / f"{name}s"):
            folder.mkdir(parents=True)
            Image.fromarray(image).save(folder / "x.png")

    def bits(name, cut):
        told = cm("likelihood", "-m", model, "--data", f"{tmp_path / name}[{cut}]", "-k", "2", "--json")
        assert told.code == 0, told.err
        return json.loads(told.out)["value"], told.err

    for k, (name, label) in enumerate((("ant", 1), ("bee", 2), ("moth", 0))):  # as the folders are sorted
        named, said = bits("names", f"{k}:{k + 1}")
        numbered, _ = bits("numbers", f"{label}:{label + 1}")
        assert named == numbered
        assert f"{name} is {label} ({name})" in said
    told = cm("likelihood", "-m", model, "--data", tmp_path / "others", "-k", "2")
    assert told.code == 2
    assert "ants, bees, moths" in told.error[0]
    (tmp_path / "plain").mkdir()
    Image.fromarray(images[0].astype(np.uint8)).save(tmp_path / "plain" / "x.png")
    assert "the likelihood is that of images without their class" in bits("plain", "0:1")[1]


def test_samples_say_what_their_labels_are_called(called, cm, tmp_path):
    assert cm("sample", "-m", called(("1", "2", "5")), "-n", "3", "-o", tmp_path / "s").code == 0
    document = json.loads((tmp_path / "s" / "dataset.json").read_text())
    assert document["class_names"] == ["1", "2", "5"]
    assert document["labels"] == [[f"{k:08}.png", k] for k in range(3)]
