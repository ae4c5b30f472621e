"""Names in archives: every one that a folder may have, and what belongs together."""

import io
import json
import os
import tarfile
import zipfile

import numpy as np
import pytest

from cmtool.errors import BadFile, MissingInput
from cmtool.files.images import images_of, open_writer
from cmtool.files.streams.names import SkippedFiles, describe_skipped, match_key, without_suffix
from cmtool.files.streams.reader import items_of, keys_of
from cmtool.pictures import encode

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (6, 3, 4, 5)).astype(np.uint8)
NAMES = [
    "ab\u202fc.png",
    "\u5199\u771f\u3000\u4e8c.png",
    "\U0001f468\u200d\U0001f373.png",
    "e\u0301\u0323.png",
    "\u05e9\u05dc\u05d5\u05dd \u202e1.png",
    "sub folder/12:30 [x]#%.png",
]


def archive(path, members):
    """A folder, .zip or .tar with members by name."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as file:
            for name, data in members.items():
                file.writestr(name, data)
    elif path.suffix == ".tar":
        with tarfile.open(path, "w") as file:
            for name, data in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                file.addfile(info, io.BytesIO(data))
    else:
        for name, data in members.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(data)
    return path


@pytest.mark.parametrize("target", ["folder", "x.zip", "x.tar"])
def test_every_legal_name_is_read(tmp_path, target):
    members = {name: encode(image) for name, image in zip(sorted(NAMES), IMAGES, strict=True)}
    path = archive(tmp_path / target, members)
    assert keys_of(path) == sorted(NAMES)
    assert [item.key for item in items_of(path)] == sorted(NAMES)
    assert np.array_equal(next(images_of(path)).images, IMAGES)


def test_names_of_a_zip_without_the_flag_of_utf_8(tmp_path):
    """As macOS packs them: bytes of UTF-8, and no word about it."""
    path = archive(tmp_path / "x.zip", {"ab.png": encode(IMAGES[0])})
    path.write_bytes(path.read_bytes().replace(b"ab.png", "\xe9.png".encode()))
    assert keys_of(path) == ["\xe9.png"]
    assert np.array_equal(next(images_of(path)).images, IMAGES[:1])


def test_bytes_that_are_no_unicode_are_told_apart_in_a_tar(tmp_path):
    names = [os.fsdecode(name) for name in (b"\xe9.png", b"\xe8.png")]
    path = archive(tmp_path / "x.tar", {name: encode(image) for name, image in zip(names, IMAGES, strict=False)})
    assert [item.key for item in items_of(path)] == names


@pytest.mark.parametrize("target", ["x.zip", "x.tar"])
@pytest.mark.parametrize("name", ["/x.png", "../x.png", "a/../../x.png", "a\x07.png", "a\x1b[31m.png"])
def test_names_that_lead_out_or_command_a_terminal(tmp_path, target, name):
    with pytest.raises(BadFile, match="not safe"):
        list(items_of(archive(tmp_path / target, {name: encode(IMAGES[0])})))


@pytest.mark.parametrize(
    ("members", "labels"),
    [
        (["a.jpg.png", "a.cls"], [2]),
        (["a.cls", "a.left.png", "a.right.png"], [2, 2]),
        (["a.left.png", "a.right.png", "a.cls", "b.png"], [2, 2, None]),
        (["v1.0/a.png", "v1.0/a.cls"], [2]),
        (["v1.0/a.png", "v1.cls"], [None]),
        (["v1/a.png", "v2/a.cls"], [None]),
    ],
)
def test_a_sample_ends_at_the_first_dot_of_the_base_name(tmp_path, members, labels):
    data = {name: b"2" if name.endswith(".cls") else encode(IMAGES[0]) for name in members}
    assert [item.label for item in items_of(archive(tmp_path / "x.tar", data))] == labels


@pytest.mark.parametrize("target", ["folder", "x.zip", "x.tar"])
def test_kinds_that_are_not_read_are_counted(tmp_path, target):
    names = ["a.png", "b.TIF", "c/d.tif", "e.gif", ".f.gif", "notes.txt", "g.cls"]
    path = archive(tmp_path / target, {name: encode(IMAGES[0]) if name == "a.png" else b"3" for name in names})
    passed = SkippedFiles()
    assert len(list(items_of(path, passed))) == 1
    assert passed == {".tif": 2, ".gif": 1}
    assert describe_skipped(passed) == "3 pictures were left out: their kinds are not read: 1 .gif, 2 .tif"


def test_a_folder_of_other_kinds_alone_says_which(tmp_path):
    (tmp_path / "a.heic").touch()
    with pytest.raises(MissingInput, match=r"1 picture was left out, since its kind is not read: 1 \.heic"):
        items_of(tmp_path)


def test_what_two_names_share():
    assert without_suffix("a/photo.v2.png") == "a/photo.v2"
    assert without_suffix("photo.v2") == "photo.v2"
    assert match_key("e\u0301.jpg") == match_key("\xe9.png")
    assert match_key("a/x.png") != match_key("b/x.png")


@pytest.mark.parametrize("target", ["x.zip", "x.tar"])
def test_archives_are_written_with_names(tmp_path, target):
    names = [*NAMES[:5], f"{'long ' * 30}/{'name' * 30}.png"]
    with open_writer(tmp_path / target, 6, IMAGES.shape[1:], called=names.__getitem__) as writer:
        writer.write(range(6), IMAGES)
    found = {item.key: item for item in items_of(tmp_path / target)}
    assert sorted(found) == sorted(names)
    if target == "x.zip":
        assert sorted(zipfile.ZipFile(tmp_path / target).namelist()) == sorted([*names, "dataset.json"])
    else:
        with tarfile.open(tmp_path / target) as file:
            assert file.getnames() == names


def labels(written, values):
    return json.dumps({"labels": [[written.format(k), value] for k, value in values.items()]}).encode()


@pytest.mark.parametrize("target", ["folder", "x.zip"])
@pytest.mark.parametrize("written", ["in\\{}.png", "in/{}.jpg", "up/in/{}.png", "{}.webp"])
def test_labels_of_a_stream_are_used_however_names_are_written(tmp_path, target, written):
    pictures = {f"in/{k}.png": encode(IMAGES[k]) for k in range(3)}
    lists = {"dataset.json": labels(written, {0: 2, 1: 0, 2: 1})}
    path, passed = archive(tmp_path / target, pictures | lists), SkippedFiles()
    assert [item.label for item in items_of(path, passed)] == [2, 0, 1]
    assert passed.notes == []


@pytest.mark.parametrize("target", ["folder", "x.zip"])
def test_labels_below_count_and_those_that_fit_nothing_are_said(tmp_path, target):
    pictures = {f"in/{k}.png": encode(IMAGES[k]) for k in range(3)}
    several = {
        "below": ({"in/dataset.json": labels("{}.png", {0: 2, 1: 0, 2: 1})}, [2, 0, 1], ""),
        "other": ({"dataset.json": labels("x{}.png", {0: 2})}, [None] * 3, "names other files, such as x0.png"),
        "some": ({"dataset.json": labels("in/{}.png", {0: 2, 1: 0})}, [2, 0, None], "has no label for 1 of 3 pictures"),
        "part": ({"in/a/dataset.json": labels("{}.png", {0: 2})}, [None] * 3, "labels that are not read: in/a/dataset"),
    }
    for case, (lists, found, said) in several.items():
        (tmp_path / case).mkdir()
        passed = SkippedFiles()
        items = list(items_of(archive(tmp_path / case / target, pictures | lists), passed))
        assert [item.label for item in items] == found
        assert [said in note for note in passed.notes] == ([True] if said else [])


def test_labels_of_a_tar_that_are_not_used_are_said(tmp_path):
    passed = SkippedFiles()
    members = {"a.png": encode(IMAGES[0]), "dataset.json": labels("a.png", {0: 1})}
    assert len(list(items_of(archive(tmp_path / "x.tar", members), passed))) == 1
    assert "labels of dataset.json are not used" in passed.notes[0]


@pytest.mark.parametrize("target", ["folder", "x.zip", "x.tar"])
def test_folders_of_systems_are_passed_over(tmp_path, target):
    names = ["a.png", "@eaDir/a.png/THUMB_M.png", "__MACOSX/a.png", "b/#recycle/c.png", "b/.ipynb_checkpoints/d.png"]
    path = archive(tmp_path / target, {name: encode(IMAGES[0]) for name in names})
    assert [item.key for item in items_of(path)] == ["a.png"]
