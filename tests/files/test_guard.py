"""What stands where a run is to write: kept, replaced with a word, or refused; before anything is made."""

import json
import os

import numpy as np
import pytest

from cmtool.errors import BadFile, UsageError, WriteFailed
from cmtool.files.images import check_output, resuming_writer
from cmtool.files.streams.manifest import ImageSettings, entries
from cmtool.files.streams.reader import images_of
from cmtool.pictures import encode

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 3, 5, 7)).astype(np.uint8)
FILES = ["x.tar", "x.zip", "x.npz", "x.npy"]
TARGETS = ["out/", *FILES]


def wanted(n=9, model="a", first=0, **facts):
    return ImageSettings(
        range(first, first + n), [seed % 3 for seed in range(first, first + n)], (3, 5, 7), {"model": model, **facts}
    )


def write(target, order, overwrite=False):
    """What ``sample`` does: check, then write all that is missing."""
    remarks = check_output(str(target), order, overwrite)
    with resuming_writer(str(target), order, overwrite=overwrite) as (writer, places):
        if writer:
            seeds = [order.seeds[i] for i in places]
            writer.write(seeds, IMAGES[seeds], [order.label(i) for i in places])
    return remarks


def tree(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("target", TARGETS)
def test_the_same_and_more_are_nothing_to_speak_of(tmp_path, target):
    assert write(f"{tmp_path}/{target}", wanted(5)) == []
    assert write(f"{tmp_path}/{target}", wanted(5)) == []
    assert write(f"{tmp_path}/{target}", wanted(9)) == []
    assert len(next(iter(images_of(f"{tmp_path}/{target}", 99)))) == 9


@pytest.mark.parametrize("target", FILES)
def test_a_file_of_the_user_is_kept(tmp_path, target):
    (tmp_path / target).write_bytes(b"of the user")
    with pytest.raises(UsageError, match="exists, and this command did not make it"):
        write(tmp_path / target, wanted())
    assert tree(tmp_path) == {target: b"of the user"}
    assert write(tmp_path / target, wanted(), overwrite=True) == []
    assert len(next(iter(images_of(tmp_path / target, 99)))) == 9


@pytest.mark.parametrize("target", FILES)
def test_a_download_that_is_under_way_is_kept(tmp_path, target):
    (tmp_path / f"{target}.part").write_bytes(b"of a browser")
    with pytest.raises(UsageError, match=r"\.part exists, and this command did not make it"):
        write(tmp_path / target, wanted())
    assert tree(tmp_path) == {f"{target}.part": b"of a browser"}


def test_a_file_that_took_the_place_of_ours_is_kept(tmp_path):
    write(tmp_path / "x.npy", wanted())
    np.save(tmp_path / "x.npy", IMAGES[:4].transpose(0, 2, 3, 1))
    with pytest.raises(UsageError, match="another file than its manifest tells of"):
        write(tmp_path / "x.npy", wanted(model="b"))
    assert len(np.load(tmp_path / "x.npy")) == 4


def test_pictures_of_the_user_in_a_folder_are_kept(tmp_path):
    photo = encode(IMAGES[30])
    (tmp_path / "00000003.png").write_bytes(photo)
    with pytest.raises(UsageError, match=r"00000003\.png exists, and this command did not make it"):
        write(tmp_path, wanted())
    assert tree(tmp_path) == {"00000003.png": photo}
    (remark,) = write(tmp_path, wanted(3))
    assert "1 other pictures (00000003.png), which count as images" in remark
    with pytest.raises(UsageError, match=r"00000003\.png exists"):
        write(tmp_path, wanted())
    assert write(tmp_path, wanted(), overwrite=True) == [remark]
    assert (tmp_path / "00000003.png").read_bytes() != photo
    assert write(tmp_path, wanted()) == []


@pytest.mark.parametrize(("facts", "who"), [({"model": "b"}, "of another model"), ({"recipe": "k"}, "other settings")])
def test_no_folder_holds_images_of_two_makers(tmp_path, facts, who):
    write(tmp_path / "out", wanted(6))
    before = tree(tmp_path)
    with pytest.raises(UsageError, match=f"holds 3 images .*{who}.*, which would stay among these"):
        write(tmp_path / "out", wanted(3, **facts))
    with pytest.raises(UsageError, match="holds 6 images"):
        write(tmp_path / "out", wanted(3, first=20, **facts))
    assert tree(tmp_path) == before
    write(tmp_path / "out", wanted(3, **facts), overwrite=True)
    write(tmp_path / "alone", wanted(3, **facts))
    assert tree(tmp_path / "out") == tree(tmp_path / "alone")


def test_images_that_are_replaced_are_told_of(tmp_path):
    write(tmp_path / "out", wanted(6))
    (remark,) = write(tmp_path / "out", wanted(6, model="b"))
    assert remark == f"6 images in {tmp_path / 'out'} are of another model and are made anew"
    (remark,) = write(tmp_path / "out", wanted(7, model="b", recipe="k"))
    assert "6 images" in remark
    assert "made with other settings" in remark


def test_other_seeds_of_the_same_maker_may_stay(tmp_path):
    write(tmp_path, wanted(6))
    assert write(tmp_path, wanted(3, first=20)) == []
    assert write(tmp_path, wanted(2)) == []
    assert len(list(tmp_path.glob("*.png"))) == 9


@pytest.mark.parametrize("target", FILES)
def test_no_image_of_a_file_is_lost_without_a_word(tmp_path, target):
    path = tmp_path / target
    write(path, wanted(6))
    before = tree(tmp_path)
    with pytest.raises(UsageError, match="holds 3 more images, which would be lost"):
        write(path, wanted(3))
    with pytest.raises(UsageError, match="holds 3 images of another model, which would be lost"):
        write(path, wanted(3, model="b"))
    assert tree(tmp_path) == before
    assert write(path, wanted(6, model="b")) == [f"6 images in {path} are of another model and are made anew"]
    assert write(path, wanted(3), overwrite=True) == []
    assert len(next(iter(images_of(path, 99)))) == 3


@pytest.mark.parametrize(
    "line",
    [b"[]", b"null", b'{"audio": "a.wav"}', b'{"seed": true, "class": 0}', b'{"seed": -1, "class": 0}', b"\xff",
     b'{"seed": 1, "class": "cat"}', b'{"seed": 1, "x": 2}', b"{" * 5000, b"9" * 9000, b" " * (3 << 20) + b"{}"],
    ids=repr,
)  # fmt: skip
def test_a_manifest_of_somebody_else_is_kept(tmp_path, line):
    (tmp_path / "out").mkdir()
    text = b'{"seed": 0, "class": 0, "model": "a"}\n\n' + line + b"\n"
    for manifest, target in (("out/manifest.jsonl", "out"), ("x.tar.manifest.jsonl", "x.tar")):
        (tmp_path / manifest).write_bytes(text)
        with pytest.raises(BadFile, match=r"line . of .* is no line of a manifest of cmtool"):
            write(tmp_path / target, wanted(3))
        assert (tmp_path / manifest).read_bytes() == text
        write(tmp_path / target, wanted(3), overwrite=True)
        assert len(list(entries(tmp_path / manifest, strict=True))) == 3


def test_a_damaged_journal_is_what_a_kill_leaves(tmp_path):
    (tmp_path / "manifest.jsonl.part").write_bytes(b'{"seed": "x"}\n[[[\n{"seed": 1, "cla')
    assert write(tmp_path, wanted(3)) == []
    assert len((tmp_path / "manifest.jsonl").read_text().splitlines()) == 3


@pytest.mark.parametrize("target", TARGETS)
def test_a_manifest_that_an_editor_saved(tmp_path, target):
    """A byte order mark, ends of lines as Windows has them, and none at the last line."""
    write(f"{tmp_path}/{target}", wanted(5))
    (manifest,) = tmp_path.rglob("*manifest.jsonl")
    whole = manifest.read_bytes()
    manifest.write_bytes(b"\xef\xbb\xbf" + whole.replace(b"\n", b"\r\n"))
    order = wanted(5)
    with resuming_writer(f"{tmp_path}/{target}", order) as (_, places):
        assert len(places) == 0
    manifest.write_bytes(b"\xef\xbb\xbf" + whole.replace(b"\n", b"\r\n").removesuffix(b"\r\n"))
    assert write(f"{tmp_path}/{target}", wanted(9)) == []
    assert [json.loads(line)["seed"] for line in manifest.read_text("utf-8").splitlines()] == list(range(9))
    write(f"{tmp_path}/fresh/{target}", wanted(9))
    fresh = next((tmp_path / "fresh").rglob("*manifest.jsonl"))
    assert manifest.read_bytes() == fresh.read_bytes()


def test_labels_that_are_damaged_are_found_before_the_work(tmp_path):
    (tmp_path / "dataset.json").write_text("[")
    with pytest.raises(BadFile, match="holds no labels"):
        check_output(str(tmp_path), wanted())


def test_places_that_cannot_be(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for target in ("file", "file/out", "file/x.tar"):
        with pytest.raises(WriteFailed):
            check_output(f"{tmp_path}/{target}", wanted())
    assert os.listdir(tmp_path) == ["file"]


def test_a_sheet_of_ours_is_made_anew_and_a_picture_is_kept(tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(encode(IMAGES[0]))
    with pytest.raises(UsageError, match="did not make it"):
        write(path, wanted())
    assert path.read_bytes() == encode(IMAGES[0])
    write(path, wanted(), overwrite=True)
    assert write(path, wanted(4, model="b")) == []
    assert len(next(iter(images_of(path, 99)))) == 4
