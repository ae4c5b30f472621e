"""Everything a user can get wrong: one sentence, a hint where there is one, the right exit code, and nothing lost."""

import errno
import io
import json
import re
import sys
import types

import numpy as np
import pytest
from tiny import listing, random_model


@pytest.fixture
def place(tmp_path, monkeypatch, trained, rgb, picture):
    """A working directory with one of everything, sound and broken."""
    monkeypatch.chdir(tmp_path)
    sound = rgb.read_bytes()
    (tmp_path / "rgb.safetensors").write_bytes(sound)
    (tmp_path / "score.safetensors").write_bytes((trained["teacher"] / "model.safetensors").read_bytes())
    (tmp_path / "digits.safetensors").write_bytes((trained["ect"] / "model.safetensors").read_bytes())
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


CASES = """
sample -m nope.safetensors
    66: there is no file nope.safetensors
    hint: *
sample -m score.safetensor
    66: there is no file score.safetensor
    hint: did you mean score.safetensors?
sample -m empty
    66: there is no file empty/model.safetensors
sample -m cut.safetensors
    65: cut.safetensors is damaged: its contents do not match its checksum
    hint: copy or make it again
sample -m flipped.safetensors
    65: flipped.safetensors is damaged: its contents do not match its checksum
    hint: copy or make it again
sample -m text.safetensors
    65: text.safetensors is not a safetensors file, or is cut short
sample -m photo.png
    65: photo.png is not a safetensors file, or is cut short
sample -m rgb.safetensors --steps 0
    2: --steps must be at least 1, not 0
sample -m rgb.safetensors -c typo.yaml
    2: unknown option 'stpes' in typo.yaml, line 1
    hint: did you mean 'steps'?
sample -m rgb.safetensors -c zero.yaml
    2: 'steps' in zero.yaml, line 1, must be at least 1, not 0
sample -m rgb.safetensors -c broken.yaml
    2: *
    hint: *
sample -m rgb.safetensors -c nope.yaml
    66: there is no file nope.yaml
    hint: --config takes a YAML file of options
sample -m rgb.safetensors --levels 0.8,80
    2: --levels must be positive numbers that fall from left to right, not 0.8,80
sample -m rgb.safetensors --levels 100,1
    2: the model knows noise levels from 0.002 to 80, not 100, 1
sample -m rgb.safetensors --levels 80,0.001
    2: the model knows noise levels from 0.002 to 80, not 80, 0.001
sample -m rgb.safetensors --levels 80,1 --steps 3
    2: --steps 3 and 2 --levels contradict each other
    hint: give one of them
sample -m rgb.safetensors --solver heun
    2: --solver walks the ODE of a score model, and this is a consistency model, which jumps
    hint: leave it out; more steps are more jumps: --steps 2
sample -m score.safetensors --solver rk9
    2: unknown solver 'rk9'
    hint: there are: euler, heun
sample -m rgb.safetensors --class 3
    2: this model was trained without classes and takes no --class
sample -m digits.safetensors --class 10
    2: there is no class 10
    hint: classes are 0 to 9: *
sample -m digits.safetensors --class cat
    2: there is no class 'cat'
    hint: there are: *
sample -m rgb.safetensors --seeds 5-1
    2: --seeds must be seeds that grow from left to right*
sample -m rgb.safetensors -o file/inside
    74: cannot write file/inside: a file is in the way
    hint: choose another place
sample -m rgb.safetensors -o file/x.npz
    74: cannot write file/x.npz: a file is in the way
    hint: choose another place
sample -m rgb.safetensors -o x.zip
    2: cannot write images to x.zip
    hint: *
sample -m rgb.safetensors --grid file/g.png
    74: cannot write file/g.png: a file is in the way
    hint: choose another place
sample -m rgb.safetensors -o - --grid -
    2: standard output takes the images or the grid
    hint: write one of them to a file
sample -m rgb.safetensors --grid g.jpg
    2: cannot write a picture to g.jpg
    hint: *
sample -m rgb.safetensors --device cuda:9
    2: there is no device 'cuda:9' here
    hint: *
interp 3 -1 -m rgb.safetensors
    2: *
    hint: *
interp 3 7 -n 1 -m rgb.safetensors
    2: --frames must be at least 2, not 1
interp 3 7 -m rgb.safetensors --class 1
    2: this model was trained without classes and takes no --class
interp 3 7 -m rgb.safetensors -o file/i.png
    74: cannot write file/i.png: a file is in the way
    hint: choose another place
edit colorize nope.png -m rgb.safetensors
    66: there is no file nope.png
edit colorize text.png -m rgb.safetensors
    65: text.png is not a picture
    hint: formats that are read: PNG, JPEG, WEBP, BMP
edit colorize half.png -m rgb.safetensors
    65: half.png is damaged: *
edit colorize empty -m rgb.safetensors
    66: cannot read empty: Is a directory
edit inpaint photo.png -m rgb.safetensors
    2: inpaint needs a mask
    hint: give --mask FILE, *
edit inpaint photo.png --mask mask12.png -m rgb.safetensors
    2: the mask mask12.png is 12x12, and photo.png is 16x16
    hint: make them the same size
edit inpaint - --mask - -m rgb.safetensors
    2: standard input is the picture or the mask
    hint: give one of them as a file
edit inpaint photo.png --mask nope.png -m rgb.safetensors
    66: there is no file nope.png
edit colorize photo.png --mask mask.png -m rgb.safetensors
    2: colorize takes no --mask
    hint: it takes: no options
edit denoise photo.png --factor 2 -m rgb.safetensors
    2: denoise takes no --factor
    hint: it takes: --level
edit superres photo.png --factor 3 -m rgb.safetensors
    2: a factor of 3 does not divide 16x16 pixels
    hint: choose one that does: --factor 2
edit superres wide.png -m rgb.safetensors
    2: the model's 16x16 is no multiple of 6x4, the size of wide.png
edit paint photo.png -m rgb.safetensors
    2: unknown editing task 'paint'
    hint: did you mean 'inpaint'?
edit denoise photo.png --level 100 -m rgb.safetensors
    2: the model knows noise levels from 0.002 to 80, not 100
edit stroke photo.png --levels 90,1 -m rgb.safetensors
    2: the model knows noise levels from 0.002 to 80, not 90, 1
edit colorize photo.png -m score.safetensors
    2: edit needs a consistency model, and score.safetensors is a score model
    hint: distil it first: cmtool distill --teacher score.safetensors
edit colorize photo.png -m digits.safetensors
    2: colorize needs a model of colour images, and this one is grey
edit colorize photo.png -m rgb.safetensors -o out.jpg
    2: cannot write a picture to out.jpg
    hint: *
edit colorize photo.png -m rgb.safetensors -o file/out.png
    74: cannot write file/out.png: a file is in the way
    hint: choose another place
fid digits --features small
    2: fid needs --ref, the images to compare with
    hint: *
fid - --ref - --features small
    2: standard input can be one side only
    hint: write one of them to a file first
fid nowhere --ref digits --features small
    66: 'nowhere' is neither a file, a folder nor a data set
    hint: data sets are: *
fid digit --ref digits --features small
    66: 'digit' is neither a file, a folder nor a data set
    hint: did you mean 'digits'?
fid digits --ref nowhere --features small
    66: 'nowhere' is neither a file, a folder nor a data set
    hint: *
fid empty --ref digits --features small
    66: there are no pictures in empty
    hint: suffixes that are read: *
fid cut.npz --ref digits --features small
    65: cut.npz is not an .npz file, or is damaged*
    hint: *
fid else.npz --ref digits --features small
    65: else.npz holds no images, but weights
    hint: images are called arr_0
fid cut.tar --ref digits --features small
    65: cut.tar *
    hint: *
fid typo.yaml --ref digits --features small
    2: cannot read images from typo.yaml
    hint: *
fid text.png --ref digits --features small
    65: text.png is not a picture
    hint: *
fid photo.png --ref digits --features small
    2: 'photo.png' has 1 images, and a covariance needs 2 at least
fid flipped.safetensors --ref digits --features small
    65: flipped.safetensors is damaged: its contents do not match its checksum
    hint: *
fid pictures.npz --ref digits --features nope
    2: unknown * 'nope'
    hint: there are: *
fid ring --ref digits --features small
    2: the features 'small' measure images, not points
    hint: points need --features points
train-ct -d nope
    2: unknown data set 'nope'
    hint: *
train-ct -d ./empty
    66: *
    hint: *
train-ct -d ./nowhere
    66: *
    hint: *
train-ct -d digits[5000:]
    2: nothing lies in 5000:
    hint: the data set has 1797 items
train-ct -d digits --method edm
    2: unknown consistency-training method 'edm'
    hint: *
train-ct -d digits --set method.sigma=3
    2: *
    hint: *
train-ct -d digits --set backbone.wdith=3
    2: unknown option of network architecture 'unet' 'wdith'
    hint: did you mean 'width'?
train-ct -d digits --set backbone.mults=[1,2,2,2,2]
    2: *
    hint: *
train-ct -d digits --sigma-min 90
    2: sigma_min (90) must be below sigma_max (80)
train-ct -d digits --lr 0
    2: --lr must be greater than 0, not 0*
train-ct -d digits --teacher score.safetensors
    2: train-ct learns from data alone and takes no teacher
    hint: *
train-ct -d digits --run file/run
    74: cannot write file/run: a file is in the way
    hint: choose another place
train-ct -d digits --run file
    74: cannot write file: a file is in the way
    hint: choose another place
train-ct -d digits --init cut.safetensors
    65: cut.safetensors is damaged: its contents do not match its checksum
    hint: *
train-ct -d shapes --set data.size=16 --init score.safetensors
    2: score.safetensors makes 1x8x8 images, and the data are 3x16x16
    hint: *--set data.size=8
distill -d digits
    2: distill needs --teacher FILE, a score model
    hint: *
distill -d digits -t nope.safetensors
    66: there is no file nope.safetensors
    hint: *
distill -d digits -t digits.safetensors
    2: digits.safetensors is a consistency model, and distill learns from a score model
    hint: *
distill -d digits -t small.safetensors
    2: small.safetensors makes 3x8x8 images, and the data are 1x8x8
    hint: *
distill -d digits -t score.safetensors --backbone unet
    2: distill takes the network of its teacher
    hint: *
distill -d digits --no-conditional -t score.safetensors
    2: score.safetensors knows 10 classes, and the data have none
    hint: *
info nope.safetensors
    66: there is no file nope.safetensors
    hint: *
info text.safetensors
    65: text.safetensors is not a safetensors file, or is cut short
"""


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

    monkeypatch.setattr("cmtool.files.atomic._close", full)
    told = cm("sample", "-m", "rgb.safetensors", "-n", "3", "--seed", "9", "-o", output)
    assert told.code == 74
    assert told.error[0].endswith(": No space left on device")
    assert told.error[1] == "free some space, or write elsewhere"
    assert listing(place) == before


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
