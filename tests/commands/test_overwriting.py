"""Commands write over nothing that they did not make, nor over what they read, unless they are told to."""

import os

import numpy as np
import pytest
from PIL import Image
from tiny import listing, pixels, random_model

import cmtool
from cmtool.files.checkpoint import save
from cmtool.files.header import read_header
from cmtool.files.picture_files import moved_by, write_animation

LEVELS = ["--ref", "digits", "--features", "small", "-n", "40", "--within", "2", "--budget", "2", "-q"]


@pytest.fixture
def model(tmp_path):
    """A checkpoint in a folder of its own: 8x8 grey, a consistency model, untrained."""
    (tmp_path / "m").mkdir()
    return random_model(tmp_path / "m" / "m.safetensors", (1, 8, 8))


@pytest.fixture
def kept(cm, tmp_path):
    """Call what must be refused before it changes any file; the sentence."""

    def call(*words, code=2):
        before = listing(tmp_path)
        told = cm(*words)
        assert (told.code, told.out) == (code, ""), told
        assert listing(tmp_path) == before
        return told.error[0]

    return call


def commands(model, out, suffix):
    """A call of each command that writes one file."""
    return {
        ".safetensors": [["convert", model, out], ["search-sigmas", model, *LEVELS, "-o", out]],
        ".png": [
            ["interp", "1", "2", "-n", "2", "-m", model, "-o", out],
            ["sample", "-n", "2", "-m", model, "-o", out],
            ["sample", "-n", "2", "-m", model, "-o", f"{out}-folder/", "--grid", out],
            ["search-sigmas", model, *LEVELS, "-o", out],
            ["convert", model, out],
        ],
        ".gif": [["interp", "1", "2", "-n", "2", "-m", model, "-o", out]],
        ".webp": [["interp", "1", "2", "-n", "2", "-m", model, "-o", out]],
        ".tar": [
            ["interp", "1", "2", "-n", "2", "-m", model, "-o", out],
            ["sample", "-n", "2", "-m", model, "-o", out],
        ],
        ".npz": [["interp", "1", "2", "-n", "2", "-m", model, "-o", out]],
    }[suffix]


@pytest.mark.parametrize("suffix", [".safetensors", ".png", ".gif", ".webp", ".tar", ".npz"])
def test_a_file_of_the_user_is_kept_until_told_otherwise(cm, kept, model, tmp_path, suffix):
    out = tmp_path / f"mine{suffix}"
    for words in commands(model, out, suffix):
        out.write_bytes(b"of the user")
        assert "this command did not make it" in kept(*words)
        assert cm(*words, "--overwrite").code == 0, words
        assert out.read_bytes() != b"of the user"
        assert cm(*words).code == 0, words  # what it made itself may give way
        for left in tmp_path.glob("mine*.jsonl"):
            left.unlink()


def test_no_input_is_written_over_by_any_name(kept, cm, model, tmp_path):
    (tmp_path / "link.safetensors").symlink_to(model)
    os.link(model, tmp_path / "hard.safetensors")
    for name in (
        model,
        f"{tmp_path}/m/../m/m.safetensors",
        tmp_path / "link.safetensors",
        tmp_path / "hard.safetensors",
    ):
        assert "read by this command" in kept("convert", model, name)
        kept("search-sigmas", model, *LEVELS, "-o", name)
    picture = tmp_path / "a.png"
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(picture)
    assert "read by this command" in kept("interp", picture, "2", "-m", model, "-o", f"{tmp_path}/./a.png")
    before = read_header(model).sha256
    assert cm("convert", model, model, "--dtype", "fp16", "--overwrite").code == 0
    assert read_header(model).parents[-1] != before


def test_a_run_is_no_place_for_its_copy(kept, trained):
    run = trained["student"]
    before = listing(run)
    for place in (run, run / "model.safetensors", run / "states/00000128.safetensors", run / "status.json"):
        kept("convert", run, place)
    assert listing(run) == before


def test_a_model_that_was_trained_from_another_is_no_copy_of_it(kept, cm, trained, tmp_path):
    student = tmp_path / "student.safetensors"
    student.write_bytes((trained["student"] / "model.safetensors").read_bytes())
    assert "did not make it" in kept("convert", trained["teacher"], student)
    tuned = tmp_path / "tuned.safetensors"
    assert cm("search-sigmas", trained["student"], *LEVELS, "-o", tuned).code == 0
    model = cmtool.load(tuned)
    save(tuned, model.model, model.header.__class__(**{**model.header.document(), "sigmas": [1.5], "sha256": ""}))
    assert "did not make it" in kept("convert", trained["student"], tuned)
    (tmp_path / "tuned.trace.jsonl").unlink()
    assert "did not make it" in kept("search-sigmas", trained["student"], *LEVELS, "-o", tuned)


def test_a_trace_of_somebody_else_is_kept(kept, model, tmp_path):
    for text in ("of the user\n", "[1]\n", '{"a": 1}\n'):
        (tmp_path / "t.trace.jsonl").write_text(text)
        assert "t.trace.jsonl exists" in kept("search-sigmas", model, *LEVELS, "-o", tmp_path / "t.safetensors")


def test_places_that_cannot_be_are_found_before_the_work(kept, model, tmp_path):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").write_bytes(b"")
    for out, code in (("folder.png", 2), ("file/x.png", 74)):
        kept("interp", "1", "2", "-m", model, "-o", tmp_path / out, code=code)
        kept("sample", "-n", "2", "-m", model, "-o", tmp_path / "s", "--grid", tmp_path / out, code=code)
    kept("sample", "-n", "2", "-m", model, "-o", tmp_path / "file", code=74)
    kept("convert", model, tmp_path / "m")
    kept("convert", model, tmp_path / "file" / "x.safetensors", code=74)
    kept("search-sigmas", model, *LEVELS, "-o", tmp_path / "m")
    kept("search-sigmas", model, *LEVELS, "-o", tmp_path / "file" / "x.safetensors", code=74)


def test_what_was_measured_is_told_though_its_copy_cannot_be_written(cm, model, tmp_path, monkeypatch):
    from cmtool.commands import search_sigmas
    from cmtool.errors import WriteFailed

    def full(*_):
        raise WriteFailed("cannot write: the disk is full")

    monkeypatch.setattr(search_sigmas, "save", full)
    told = cm("search-sigmas", model, *LEVELS, "-o", tmp_path / "t.safetensors")
    assert told.code == 74
    assert told.out.startswith("FD-small")
    assert "2 measurements" in told.out


def test_images_are_told_of_though_their_sheet_cannot_be_written(cm, model, tmp_path, monkeypatch):
    from cmtool.commands import sample
    from cmtool.errors import WriteFailed

    def full(*_):
        raise WriteFailed("cannot write: the disk is full")

    monkeypatch.setattr(sample, "write_picture", full)
    told = cm("sample", "-m", model, "-n", "2", "-o", tmp_path / "s", "--grid", tmp_path / "g.png")
    assert (told.code, told.out) == (74, f"{tmp_path / 's'}\n")


def test_a_folder_of_the_user_is_no_place_for_a_model_for_diffusers(kept, model, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("of the user")
    assert "is not empty" in kept("convert", model, tmp_path / "mine", "--to", "diffusers")


def test_frames_are_taken_up_like_images(cm, kept, model, tmp_path):
    words = ["interp", "1", "2", "-n", "3", "-m", model, "-o", tmp_path / "frames"]
    assert cm(*words).code == 0
    before = listing(tmp_path / "frames")
    assert cm(*words).code == 0
    assert listing(tmp_path / "frames") == before
    told = cm("interp", "1", "4", "-n", "3", "-m", model, "-o", tmp_path / "frames")
    assert "3 images in" in told.err
    assert "made with other settings and are made anew" in told.err
    assert "would stay among these" in kept("sample", "-n", "1", "-m", model, "-o", tmp_path / "frames")


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_an_animation_says_who_made_it(tmp_path, suffix):
    frames = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 8)).astype(np.uint8)
    path = tmp_path / f"x{suffix}"
    write_animation(path, frames, 12, "interp")
    assert moved_by("interp")(path)
    assert not moved_by("edit")(path)
    with Image.open(path) as image:
        image.save(tmp_path / f"y{suffix}", comment=b"", xmp=b"")
    assert not moved_by("interp")(tmp_path / f"y{suffix}")
    path.write_bytes(path.read_bytes()[:20])
    assert not moved_by("interp")(path)


def test_a_sheet_of_ours_gives_way(well, model, tmp_path):
    for seed in (1, 2):
        well("sample", "-n", "1", "--seed", seed, "-m", model, "-o", tmp_path / "s", "--grid", tmp_path / "g.png")
    assert pixels(tmp_path / "g.png").shape == (68, 68)
