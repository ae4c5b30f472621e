"""Labels of dataset.json and of sample's own list: what they mean, and what is said where they are wrong."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from cmtool.datasets.folder import folder
from cmtool.errors import BadFile
from cmtool.options.hint_words import word_hint


def edm(root, labels, count=6, **more):
    """A folder as EDM's tools write it, three pictures a part; picture k is of grey value k."""
    names = [f"{k // 3:05d}/img{k:08d}.png" for k in range(count)]
    for k, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 4), k, np.uint8)).save(root / name)
    pairs = None if labels is None else [[name, label] for name, label in zip(names, labels, strict=True)]
    (root / "dataset.json").write_text(json.dumps({"labels": pairs, **more}))
    return root


def test_edms_labels_are_those_of_dataset_json(tmp_path):
    data = folder(edm(tmp_path, [2, 0, 1, 0, 2, 4]))
    assert data.classes == ("0", "1", "2", "3", "4")
    assert [data[k][1] for k in range(6)] == [2, 0, 1, 0, 2, 4]
    assert folder(tmp_path, labels="folder").classes == ("00000", "00001")
    assert folder(tmp_path, labels="none").classes == ()


def test_names_of_classes_are_kept(tmp_path):
    assert folder(edm(tmp_path, [1, 0, 1, 0, 1, 0], class_names=["cat", "dog"])).classes == ("cat", "dog")
    assert folder(edm(tmp_path, [1, 0, 1, 0, 1, 2], class_names={"1": "dog"})).classes == ("0", "dog", "2")
    assert folder(edm(tmp_path, [0] * 6, class_names=["crane", "owl", "crane"])).classes == (
        *("crane (0)", "owl", "crane (2)"),
    )


def test_parts_of_edm_are_no_classes(tmp_path):
    assert folder(edm(tmp_path, None)).classes == ()
    (tmp_path / "dataset.json").unlink()
    data = folder(tmp_path)
    assert (data.classes, len(data.remarks)) == ((), 1)
    assert "EDM's numbered parts" in data.remarks[0]


def test_files_that_are_gone_are_counted(tmp_path):
    edm(tmp_path, [0, 1, 2, 0, 1, 2])
    (tmp_path / "00001" / "img00000005.png").unlink()
    data = folder(tmp_path)
    assert data.labels == [0, 1, 2, 0, 1]
    assert data.remarks == (f"dataset.json of {tmp_path.name} names 1 files that are not here",)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "holds no labels, or is damaged"),
        ("[1, 2]", "holds no labels, or is damaged"),
        (json.dumps({"images": []}), "holds no labels, or is damaged"),
        (json.dumps({"labels": [["00000/img00000000.png", 0, 1]]}), "holds no labels, or is damaged"),
        ("[" * 100_000, "holds no labels, or is damaged"),
        (json.dumps({"labels": [["a.png", 0], ["b.png", 1]]}), "names other files: a.png is not here"),
        (json.dumps({"labels": [["00000/img00000000.png", 0]]}), "img00000001.png has no label in dataset.json"),
        (json.dumps({"labels": [[f"{k // 3:05d}/img{k:08d}.png", -k] for k in range(6)]}), "has the label -1"),
        (json.dumps({"labels": [[f"{k // 3:05d}/img{k:08d}.png", [0.5]] for k in range(6)]}), "has the label"),
        (json.dumps({"labels": [[f"{k // 3:05d}/img{k:08d}.png", 10**9] for k in range(6)]}), "no number of a class"),
        (json.dumps({"labels": [[f"{k // 3:05d}/img{k:08d}.png", True] for k in range(6)]}), "has the label True"),
        (json.dumps({"labels": [["00000/img00000000.png", k] for k in range(6)]}), "is damaged"),
    ],
)
def test_a_wrong_dataset_json_is_said(tmp_path, text, said):
    edm(tmp_path, [0] * 6)
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(BadFile, match=said.replace("[", r"\[")) as caught:
        folder(tmp_path)
    assert "--set data.labels=none" in word_hint(caught.value.hint)
    assert folder(tmp_path, labels="none").classes == ()


def test_windows_wrote_it(tmp_path):
    edm(tmp_path, [0, 1, 2, 0, 1, 2])
    text = (tmp_path / "dataset.json").read_text().replace("/", "\\\\")
    (tmp_path / "dataset.json").write_text(text, encoding="utf-8-sig")
    assert folder(tmp_path).labels == [0, 1, 2, 0, 1, 2]


def test_the_list_of_a_run_of_sample_that_was_stopped(tmp_path):
    for seed in (3, 4):
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / f"{seed:08d}.png")
    lines = [json.dumps({"seed": seed, "class": seed % 3, "model": "m"}) for seed in (3, 4, 5)]
    (tmp_path / "manifest.jsonl").write_text("\n".join(lines))
    assert folder(tmp_path).labels == [0, 1]
    (tmp_path / "manifest.jsonl").write_text("\n".join(lines[:1]))
    assert folder(tmp_path).labels is None


def packed(root, way):
    """The folder itself, or a .zip or .tar of it."""
    return root if way == "folder" else shutil.make_archive(str(root), way, root.parent, root.name)


@pytest.mark.parametrize("way", ["folder", "zip", "tar"])
@pytest.mark.parametrize("written", ["{}\\{}.png", "{}/{}.jpg", "data/{}/{}.png", "{}/{}"])
def test_labels_are_used_however_names_are_written(tmp_path, way, written):
    root = edm(tmp_path / "data", [0, 1, 2, 0, 1, 2])
    pairs = json.loads((root / "dataset.json").read_text())["labels"]
    pairs = [[written.format(*name.removesuffix(".png").split("/")), label] for name, label in pairs]
    (root / "dataset.json").write_text(json.dumps({"labels": pairs}))
    assert folder(packed(root, way)).labels == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize("way", ["folder", "zip", "tar"])
def test_labels_one_folder_below_are_used_and_those_of_a_part_are_named(tmp_path, way):
    root = tmp_path / "data"
    edm(root / "inner", [0, 1, 2, 0, 1, 2])
    assert folder(packed(root, way)).labels == [0, 1, 2, 0, 1, 2]
    edm(root / "other", [0] * 6)
    data = folder(packed(root, way))
    assert data.classes == ("inner", "other")
    assert "inner/dataset.json, other/dataset.json are not read" in data.remarks[0]


@pytest.mark.parametrize("way", ["folder", "zip", "tar"])
def test_folders_of_classes_without_images_are_named(tmp_path, way):
    root = tmp_path / "data"
    edm(root / "a", None)
    edm(root / "c", None)
    (root / "b").mkdir()
    (root / "d").mkdir()
    (root / "d" / "notes.txt").touch()
    (root / "@eaDir").mkdir()
    for found in root.rglob("dataset.json"):
        found.unlink()
    data = folder(packed(root, way))
    assert data.classes == ("a", "c")
    told = "2 folders have no images, and no class of that name: b, d"
    assert [line.partition(": ")[2] for line in data.remarks] == [told]
    assert folder(packed(root, way), labels="none").remarks == ()


def test_names_of_macos_are_composed(tmp_path):
    for name in ("e\u0301te\u0301", "hiver"):
        (tmp_path / name).mkdir()
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / name / "1.png")
    assert folder(tmp_path).classes == ("hiver", "\u00e9t\u00e9")
