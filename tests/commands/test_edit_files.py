"""Edits and the files around them: names, partners, places, and what is told of masks."""

import json
import os
import shutil
import zipfile

import numpy as np
import pytest
from PIL import Image
from tiny import listing, pixels, random_model

from cmtool.files.streams.reader import keys_of
from cmtool.pictures import encode

RNG = np.random.default_rng(3)
BOX = ["--box", "4,4,8,8"]


def picture(path, size=(16, 16)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RNG.integers(0, 256, (*size, 3), np.uint8)).save(path)
    return path


@pytest.fixture
def edit(cm, rgb):
    """Call ``edit inpaint`` with one step."""

    def call(*argv):
        return cm("edit", "inpaint", *argv, "-m", rgb, "--steps", "1")

    return call


@pytest.fixture
def folder(tmp_path):
    for name in ("my photo.png", "12:30.jpg", "a/x.png", "b/x.png", "v1.2.png", "e\u0301 \u202f.png"):
        picture(tmp_path / "in" / name)
    return tmp_path / "in"


@pytest.mark.parametrize("target", ["out", "out.zip", "out.tar"])
def test_results_have_the_names_of_their_pictures(edit, folder, tmp_path, target):
    assert edit(folder, *BOX, "-o", tmp_path / target).code == 0
    names = ["12:30.png", "a/x.png", "b/x.png", "e\u0301 \u202f.png", "my photo.png", "v1.2.png"]
    assert keys_of(tmp_path / target) == names
    assert edit(tmp_path / target, *BOX, "-o", tmp_path / "again").code == 0
    assert keys_of(tmp_path / "again") == names


def test_names_that_differ_in_the_suffix_alone(edit, tmp_path):
    for name in ("x.jpg", "x.png"):
        picture(tmp_path / "in" / name)
    assert edit(tmp_path / "in", *BOX, "-o", tmp_path / "out", "--variants", "2", "--steps", "2").code == 0
    assert sorted(listing(tmp_path / "out")) == ["x-0.png", "x-1.png", "x.png-0.png", "x.png-1.png"]


def test_archives_take_results_of_several_sizes_and_arrays_do_not(edit, tmp_path):
    for i, size in enumerate([(16, 16), (18, 20)]):
        picture(tmp_path / "in" / f"{i}.png", size)
    words = [tmp_path / "in", *BOX, "--fit", "tile", "-o"]
    assert edit(*words, tmp_path / "x.zip").code == 0
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        assert Image.open(archive.open("1.png")).size == (20, 18)
    told = edit(*words, tmp_path / "x.npz")
    assert told.code == 2 and "several sizes" in told.error[0]


def ways_in(folder, tmp_path):
    """Names of one folder, and of one picture."""
    (tmp_path / "link").symlink_to(folder)
    photo = folder / "my photo.png"
    os.link(photo, tmp_path / "hard.png")
    (tmp_path / "soft.png").symlink_to(photo)
    shutil.make_archive(str(tmp_path / "x"), "zip", folder)
    return [
        (folder, folder),
        (folder, f"{folder}/."),
        (folder, tmp_path / "link"),
        (tmp_path / "link", f"{folder}/"),
        (photo, photo),
        (photo, folder),
        (photo, tmp_path / "hard.png"),
        (tmp_path / "soft.png", photo),
        (photo, tmp_path / "soft.png"),
        (tmp_path / "x.zip", tmp_path / "x.zip"),
        (folder / "a", folder.parent / "in" / "a"),
    ]


def test_nothing_is_written_over_what_is_read(edit, folder, tmp_path):
    ways = ways_in(folder, tmp_path)
    before = listing(tmp_path)
    for source, target in ways:
        told = edit(source, *BOX, "-o", target)
        assert told.code == 2, target
        assert "write over it" in told.error[0] or "no edit made it" in told.error[0]
        assert listing(tmp_path) == before


def test_results_do_not_become_inputs_that_are_written_over(edit, tmp_path):
    picture(tmp_path / "in" / "x.png")
    assert edit(tmp_path / "in", *BOX, "-o", tmp_path / "in" / "out").code == 0
    before = listing(tmp_path)
    told = edit(tmp_path / "in" / "out" / "x.png", *BOX, "-o", tmp_path / "in" / "out")
    assert told.code == 2 and "write over it" in told.error[0]
    assert listing(tmp_path) == before


def test_foreign_files_stay_and_results_of_an_edit_may_go(edit, folder, tmp_path):
    other = picture(tmp_path / "out" / "a" / "x.png").read_bytes()
    told = edit(folder, *BOX, "-o", tmp_path / "out")
    assert told.code == 2 and "out/a/x.png exists, and no edit made it" in told.error[0]
    assert listing(tmp_path / "out") == {"a/x.png": other}
    assert edit(folder, *BOX, "-o", tmp_path / "out", "--overwrite").code == 0
    assert listing(tmp_path / "out")["a/x.png"] != other
    assert edit(folder, *BOX, "-o", tmp_path / "out", "--seed", "1").code == 0
    for place in ("mine.png", "mine.zip", "mine.npz"):
        (tmp_path / place).write_bytes(b"mine")
        told = edit(folder / "my photo.png", *BOX, "-o", tmp_path / place)
        assert told.code == 2 and "did not make it" in told.error[0]
        assert (tmp_path / place).read_bytes() == b"mine"


def test_overwrite_edits_a_folder_in_its_place(edit, tmp_path):
    picture(tmp_path / "in" / "x.png")
    before = pixels(tmp_path / "in" / "x.png").copy()
    assert edit(tmp_path / "in", *BOX, "-o", tmp_path / "in", "--overwrite").code == 0
    after = pixels(tmp_path / "in" / "x.png")
    changed = (before != after).any(-1)
    assert changed[4:12, 4:12].any() and not changed[:4].any()
    assert sorted(listing(tmp_path / "in")) == ["x.png"]


def test_the_report_has_a_place_of_its_own(edit, folder, tmp_path):
    photo = folder / "my photo.png"
    before = listing(folder)
    for words in (["--report", photo], ["--report", tmp_path / "o.png"], ["--report", "/proc/r.png"]):
        told = edit(photo, *BOX, "-o", tmp_path / "o.png", *words)
        assert told.code == (74 if "/proc/r.png" in words else 2)
        assert listing(folder) == before and not (tmp_path / "o.png").exists()


def test_truths_belong_by_name(edit, tmp_path):
    for name in ("b.png", "a.png"):
        picture(tmp_path / "in" / name)
        shutil.copy(tmp_path / "in" / name, tmp_path / name.replace(".png", ".bmp.png"))
    truths = tmp_path / "truth"
    truths.mkdir()
    for name, source in (("b.bmp", "b.png"), ("a.bmp", "a.png"), ("c.bmp", "a.png")):
        Image.open(tmp_path / "in" / source).save(truths / name)
    words = [tmp_path / "in", "--box", "0,0,1,1", "-o", tmp_path / "out", "--json"]
    told = edit(*words, "--truth", truths)
    assert told.code == 0 and json.loads(told.out)["psnr"] > 20
    assert "1 of the true images have no input of their name" in told.err
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as archive:
        for name in ("b.png", "a.png"):
            archive.write(tmp_path / "in" / name, name)
    assert json.loads(edit(*words, "--truth", tmp_path / "t.zip").out)["psnr"] == json.loads(told.out)["psnr"]
    (truths / "a.bmp").rename(truths / "z.bmp")
    told = edit(*words[:-1], "--truth", truths)
    assert told.code == 2 and "no true image called 'a'" in told.error[0] and "b, c, z" in told.error[1]


def test_truths_without_names_belong_by_their_order_and_number(edit, tmp_path):
    rows = RNG.integers(0, 256, (3, 16, 16, 3), np.uint8)
    np.save(tmp_path / "in.npy", rows)
    np.save(tmp_path / "truth.npy", rows[:2])
    words = ["--box", "0,0,1,1", "-o", tmp_path / "out"]
    assert json.loads(edit(tmp_path / "in.npy", "--truth", tmp_path / "in.npy", *words, "--json").out)["psnr"] > 20
    for pair in (("in", "truth"), ("truth", "in")):
        told = edit(tmp_path / f"{pair[0]}.npy", "--truth", tmp_path / f"{pair[1]}.npy", *words)
        assert told.code == 2 and "not as many true images as inputs" in told.error[0]


def test_a_folder_of_masks_belongs_by_name(edit, tmp_path):
    for k, name in enumerate(("b", "a")):
        picture(tmp_path / "in" / f"{name}.png")
        mask = np.zeros((16, 16), np.uint8)
        mask[8 * k : 8 * k + 8] = 255
        (tmp_path / "masks").mkdir(exist_ok=True)
        Image.fromarray(mask).save(tmp_path / "masks" / f"{name}.bmp")
    told = edit(tmp_path / "in", "--mask", tmp_path / "masks", "-o", tmp_path / "out", "--json")
    assert told.code == 0 and json.loads(told.out)["marked"] == 256
    assert "128 of 256 pixels (50.0%) are to be filled in" in told.err
    for name, rows in (("b", slice(0, 8)), ("a", slice(8, 16))):
        changed = (pixels(tmp_path / "in" / f"{name}.png") != pixels(tmp_path / "out" / f"{name}.png")).any((1, 2))
        assert changed[rows].all() and changed.sum() == 8
    (tmp_path / "masks" / "a.bmp").unlink()
    told = edit(tmp_path / "in", "--mask", tmp_path / "masks", "-o", tmp_path / "out")
    assert told.code == 2 and "no mask called 'a'" in told.error[0]


def test_masks_that_mark_nothing_or_all_are_said(edit, tmp_path):
    photo = picture(tmp_path / "photo.png")
    for value, words in ((0, "marks nothing"), (255, "marks everything")):
        Image.fromarray(np.full((16, 16), value, np.uint8)).save(tmp_path / "mask.png")
        told = edit(photo, "--mask", tmp_path / "mask.png", "-o", tmp_path / "o.png", "-q")
        assert told.code == 0 and words in told.err
    Image.fromarray(np.zeros((8, 16), np.uint8)).save(tmp_path / "mask.png")
    told = edit(photo, "--mask", tmp_path / "mask.png", "-o", tmp_path / "o.png")
    assert told.code == 2 and "is 16x8, and" in told.error[0]


def test_kinds_that_are_not_read_are_told(edit, tmp_path):
    picture(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "b.tiff").touch()
    told = edit(tmp_path / "in", *BOX, "-o", tmp_path / "out", "--json", "-q")
    assert json.loads(told.out)["left_out"] == {".tiff": 1} and "1 .tiff" in told.err


@pytest.mark.parametrize(("task", "size"), [("superres", (7, 5)), ("colorize", (9, 12))])
def test_the_known_part_of_a_small_picture_is_measured_where_the_result_is(well, rgb, tmp_path, task, size):
    photo = picture(tmp_path / "photo.png", size)
    words = ["--fit", "tile", "-m", rgb, "--steps", "1", "-o", tmp_path / "o.png", "--json"]
    told = json.loads(well("edit", task, photo, *words, *(["--factor", "2"] if task == "superres" else [])))
    small, result = pixels(photo).astype(float), pixels(tmp_path / "o.png").astype(float)
    if task == "superres":
        off = np.abs(result.reshape(7, 2, 5, 2, 3).mean((1, 3)) - small).max()
        assert told["known_error"] == pytest.approx(off, abs=0.01)
    assert result.shape[:2] == ((14, 10) if task == "superres" else size)
    assert told["known_error"] < 0.6


def test_classes_are_those_of_the_folders(well, cm, tmp_path):
    model = random_model(tmp_path / "m.safetensors", classes=3)
    for name in ("class 2/x.png", "class 0/x.png", "00001/x.png", "other/x.png"):
        picture(tmp_path / "in" / name)
    words = ["edit", "inpaint", tmp_path / "in", *BOX, "--steps", "1", "-m", model, "-o", tmp_path / "out"]
    told = cm(*words, "--json")
    found = dict(zip(sorted(["class 2", "class 0", "00001", "other"]), json.loads(told.out)["classes"], strict=True))
    assert (found["class 2"], found["class 0"]) == (2, 0)
    assert told.err.count("fits best what is known") == 2
    (tmp_path / "in" / "dataset.json").write_text('{"labels": [["other/x.png", 7], ["00001/x.png", 1]]}')
    told = cm(*words, "--json")
    assert json.loads(told.out)["classes"][0] == 1
    assert "other/x.png has the label 7, and the model has 3 classes" in told.err


def test_a_model_that_gives_no_numbers_is_an_error(cm, rgb, tmp_path, monkeypatch):
    from cmtool.core.denoiser import Denoiser

    forward = Denoiser.forward
    monkeypatch.setattr(Denoiser, "forward", lambda *args, **words: forward(*args, **words) * float("nan"))
    (tmp_path / "photo.png").write_bytes(encode(RNG.integers(0, 256, (3, 16, 16)).astype(np.uint8)))
    told = cm("edit", "inpaint", tmp_path / "photo.png", *BOX, "-m", rgb, "--steps", "1", "-o", tmp_path / "o.png")
    assert told.code == 70 and "not finite" in told.error[0]
    assert not (tmp_path / "o.png").exists()
