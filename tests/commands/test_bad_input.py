"""Everything a user can get wrong: one sentence, a hint where there is one, the right exit code, and nothing lost."""

import errno
import io
import json
import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from tiny import listing, random_model

from cmtool.cli import run


@pytest.fixture
def place(tmp_path, monkeypatch, trained, rgb, picture):
    """A working directory with one of everything, sound and broken."""
    monkeypatch.chdir(tmp_path)
    sound = rgb.read_bytes()
    (tmp_path / "rgb.safetensors").write_bytes(sound)
    (tmp_path / "score.safetensors").write_bytes((trained["teacher"] / "model.safetensors").read_bytes())
    (tmp_path / "digits.safetensors").write_bytes((trained["tuned"] / "model.safetensors").read_bytes())
    random_model(tmp_path / "small.safetensors", (3, 8, 8), kind="score")
    (tmp_path / "cut.safetensors").write_bytes(sound[: len(sound) // 2])
    flipped = bytearray(sound)
    flipped[-1000] ^= 1
    (tmp_path / "flipped.safetensors").write_bytes(flipped)
    (tmp_path / "text.safetensors").write_text("hello, I am no checkpoint\n" * 20)
    (tmp_path / "text.png").write_text("hello, I am no picture")
    picture("photo.png", np.full((16, 16, 3), 90, np.uint8))
    picture("mask.png", np.full((16, 16), 255, np.uint8))
    picture("mask12.png", np.full((12, 12), 255, np.uint8))
    picture("wide.png", np.full((4, 6, 3), 90, np.uint8))
    (tmp_path / "half.png").write_bytes((tmp_path / "photo.png").read_bytes()[:60])
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("a file, no folder")
    np.savez(tmp_path / "pictures.npz", arr_0=np.zeros((80, 8, 8, 1), np.uint8))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "pictures.npz").read_bytes()[:900])
    np.savez(tmp_path / "else.npz", weights=np.zeros(3))
    (tmp_path / "cut.tar").write_bytes(b"0" * 700)
    (tmp_path / "typo.yaml").write_text("stpes: 2\n")
    (tmp_path / "zero.yaml").write_text("steps: 0\n")
    (tmp_path / "broken.yaml").write_text("steps: [1\n")
    return tmp_path


CASES = Path(__file__).with_name("bad_input.txt").read_text()


def cases():
    """The words of each case, the exit code, the sentence and the hint; ``*`` stands for anything."""
    for block in re.split(r"\n(?! )", CASES.strip()):
        argv, result, *hint = (line.strip() for line in block.splitlines())
        code, _, sentence = result.partition(": ")
        yield pytest.param(argv, int(code), sentence, "".join(hint).removeprefix("hint: "), id=argv)


@pytest.mark.parametrize(("argv", "code", "sentence", "hint"), list(cases()))
def test_one_sentence_and_the_right_code(cm, place, argv, code, sentence, hint):
    before = listing(place)
    told = cm(*argv.split())
    found, hinted = told.error
    assert told.code == code, told.err
    assert re.fullmatch(re.escape(sentence).replace(r"\*", ".*"), found), found
    assert re.fullmatch(re.escape(hint).replace(r"\*", ".*"), hinted), hinted
    assert told.out == ""
    after = listing(place)
    assert {name: after.get(name) for name in before} == before
    assert not [name for name in after if ".tmp-" in name]


def piped(monkeypatch, data):
    """Standard input that holds these bytes."""
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=io.BytesIO(data), isatty=lambda: False))


@pytest.mark.parametrize("data", [b"", b"hello" * 300, "cut"])
def test_what_is_no_tar_through_a_pipe(cm, place, monkeypatch, well, data):
    if data == "cut":
        well("sample", "-m", "rgb.safetensors", "-n", "5", "-o", "x.tar")
        data = (place / "x.tar").read_bytes()[:-11_000]
    piped(monkeypatch, data)
    told = cm("fid", "-", "--ref", "digits", "--features", "small")
    assert told.code == 65
    assert told.error[0].startswith("standard input")


def test_what_is_no_picture_through_a_pipe(cm, place, monkeypatch):
    piped(monkeypatch, b"hello")
    told = cm("edit", "colorize", "-", "-m", "rgb.safetensors")
    assert (told.code, told.error[0]) == (65, "standard input is not a picture")


def test_a_damaged_image_among_sound_ones_is_named(cm, well, place):
    well("sample", "-m", "rgb.safetensors", "-n", "5", "-o", "samples")
    (place / "samples" / "00000003.png").write_bytes(b"hello")
    told = cm("fid", "samples", "--ref", "digits", "--features", "small")
    assert (told.code, told.error[0]) == (65, "samples/00000003.png is not a picture")


def test_errors_are_json_for_programs(cm, place):
    told = cm("sample", "-m", "cut.safetensors", "--json")
    assert told.out == ""
    document = json.loads(told.err.splitlines()[-1])
    sentence = "cut.safetensors is damaged: its contents do not match its checksum"
    assert document == {"error": {"code": 65, "message": sentence, "hint": "copy or make it again"}}


@pytest.mark.parametrize("output", ["samples", "x.npz", "x.tar"])
def test_a_full_disk_keeps_the_old_files(cm, well, place, monkeypatch, output):
    """The system refuses every write to a file, as a full disk does."""
    well("sample", "-m", "rgb.safetensors", "-n", "3", "-o", output)
    before = listing(place)

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    told = cm("sample", "-m", "rgb.safetensors", "-n", "3", "--seed", "9", "-o", output, "--overwrite")
    assert told.code == 74
    assert told.error[0].endswith(": No space left on device")
    assert told.error[1] == "free some space, or write elsewhere"
    assert {name: listing(place)[name] for name in before} == before


def test_every_flipped_bit_of_a_checkpoint_is_found(cm, place):
    sound = (place / "rgb.safetensors").read_bytes()
    for at in np.random.default_rng(0).integers(0, len(sound), 40):
        damaged = bytearray(sound)
        damaged[at] ^= 1 << int(at) % 8
        (place / "damaged.safetensors").write_bytes(damaged)
        told = cm("sample", "-m", "damaged.safetensors", "-n", "1")
        assert told.code == 65, (at, told.err)
        assert "damaged.safetensors" in told.error[0]


def test_inception_without_its_weights_says_where_to_get_them(cm, place):
    told = cm("fid", "pictures.npz", "--ref", "digits")
    assert told.code == 69
    assert "inception" in told.error[0]
    assert "http" in "".join(told.error)


LONG = "9" * 5000


@pytest.mark.parametrize(
    "words",
    [
        ["sample", "-n", "1", "--class", LONG],
        ["sample", "-n", "1", "--class", "²"],
        ["sample", "--seeds", f"0-{LONG}"],
        ["sample", "--seed", LONG],
        ["interp", LONG, "3"],
        ["interp", "1", "3", "--fps", "1e-300"],
        ["sample", "--device", f"cuda:{LONG}"],
    ],
    ids=range(7),
)
def test_numbers_of_five_thousand_digits(words, capsys):
    assert run([*words, "--threads", "1"]) == 2
    assert capsys.readouterr().err.count("cmtool: error:") == 1
