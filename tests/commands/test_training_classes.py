"""The classes of the data and those of the model that training goes on from: matched by name, and told."""

import json

import pytest
import torch
from tiny import NETWORK, SHORT, TINY

from cmtool.datasets.digits import digits
from cmtool.files.header import read_header
from cmtool.options.types import Spec
from cmtool.pipelines.training_job import build_training
from cmtool.settings import TrainCtOptions
from cmtool.testing import check_dataset

CPU = torch.device("cpu")
NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def written(root, name, names, each=2):
    """Digits in folders that are called as ``names`` says, 0 to 9."""
    from PIL import Image

    data, count = digits(), dict.fromkeys(range(10), 0)
    for i in range(200):
        image, label = data[i]
        if count[label] < each and names[label]:
            folder = root / name / names[label]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image[0].numpy()).save(folder / f"{i:04d}.png")
            count[label] += 1
    return root / name


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("classes")


@pytest.fixture(scope="module")
def named(root):
    """A tiny score model of ten named digits; its classes are in the order of the alphabet."""
    from cmtool.cli import run

    data = written(root, "named", NAMES)
    words = ["train-score", "-d", str(data), *TINY, "--run-dir", str(root / "teacher"), "--threads", "1", "--quiet"]
    assert run(words) == 0
    return root / "teacher"


def test_training_tells_the_classes(cm, root, named, tmp_path):
    assert read_header(named / "model.safetensors").classes == tuple(sorted(NAMES))
    told = cm("train-ct", "-d", root / "named", *TINY, "--dry-run")
    assert "data: folder, 20 of 1x8x8, 10 classes: eight, five, four, nine, one, seven, six, " in told.err
    told = cm("train-ct", "-d", root / "named", *TINY, "--dry-run", "--no-conditional")
    assert "its labels not used (10 classes: " in told.err
    told = cm("train-ct", "-d", root / "named" / "one", *TINY, "--dry-run")
    assert "2 of 1x8x8, no classes" in told.err


def test_labels_follow_the_names_of_the_teacher(root, named):
    """Of folders called otherwise in order, each label is the teacher's for that digit."""
    order = sorted(NAMES)
    data = written(root, "upper", [name.upper() if name != "six" else "Six " for name in NAMES])
    options = TrainCtOptions(init=named, data=Spec(name="folder", source=str(data)), method=Spec(name="ct"))
    job = build_training(options, CPU)
    check_dataset(job.dataset)
    assert job.dataset.classes == tuple(order)
    folders = [name.partition("/")[0] for name in job.dataset.inventory if "/" in name]
    assert [job.dataset[i][1] for i in range(20)] == [order.index(name.lower().strip()) for name in folders]
    _, labels = job.batches.cache.read(range(20))
    assert labels.tolist() == [job.dataset[i][1] for i in range(20)]
    assert job.header.classes == tuple(order)


def test_numbers_of_classes_are_taken_as_numbers(cm, root, trained, tmp_path):
    data = written(root, "some", [None, None, None, "3", None, None, None, "7", None, None])
    told = cm("distill", "-t", trained["teacher"], "-d", data, *SHORT, "--dry-run")
    assert told.code == 0, told.err
    assert "the classes of the data in" in told.err
    assert "3 is 3, class 3, 7 is 7, class 7" in told.err


@pytest.mark.parametrize("flags", [("distill", "-t"), ("train-ct", "--init")])
def test_other_classes_are_refused(cm, root, named, flags):
    other = written(root, "other", ["null", *NAMES[1:-1], "neuf"])
    told = cm(*flags, named, "-d", other, *SHORT, "--dry-run")
    path = named / "model.safetensors"
    assert (told.code, told.error[0]) == (
        *(2, f"the data and {path} have different classes: {path} knows no neuf, null"),
    )
    assert "eight, five, four" in told.error[1]


def test_a_model_without_classes_says_that_labels_are_not_used(cm, root, trained, tmp_path):
    words = ["train-ct", "-d", "digits", *TINY, "--images", "32", "--no-conditional", "--run-dir", tmp_path / "run"]
    assert cm(*words).code == 0
    told = cm("train-ct", "--init", tmp_path / "run", "-d", "digits", *SHORT, "--dry-run")
    assert told.code == 0
    assert "knows no classes: the labels are not used" in told.err


def test_what_sample_writes_is_training_data(well, cm, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for target in ("drawn", "drawn.zip", "drawn.tar", "drawn.npz"):
        well("sample", "-m", trained["tuned"], "-n", "20", "-o", target, "-q")
        told = cm("train-ct", "-d", target, *TINY, "--dry-run", "--json")
        assert told.code == 0, told.err
        assert "10 classes: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9" in told.err
        assert json.loads(told.out)["data"] == {"name": "folder", "images": 20, "shape": [1, 8, 8]}


def test_a_folder_that_is_called_like_a_data_set(cm, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    told = cm("train-ct", "-d", "digits", *TINY, "--dry-run")
    assert (told.code, "for the folder of this name write ./digits" in told.err) == (0, True)
    told = cm("train-ct", "-d", "./digits", *TINY, "--dry-run")
    assert (told.code, told.error[0]) == (66, "there are no images in digits")


def test_pictures_that_are_not_read_are_told(cm, root, named):
    (root / "named" / "one" / "more.TIFF").write_bytes(b"II*\0")
    told = cm("train-ct", "-d", root / "named", *NETWORK, *SHORT, "--dry-run")
    (root / "named" / "one" / "more.TIFF").unlink()
    assert "named: not read: 1 .tiff" in told.err
