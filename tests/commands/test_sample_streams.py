"""``sample`` that is killed, split over processes, short of memory or told which classes to draw."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import listing, pixels, random_model

from cmtool.commands.shared.preview import draw_picture
from cmtool.core.noise import LABEL, Noise
from cmtool.files.header import read_header
from cmtool.files.images import resumable
from cmtool.files.streams.reader import images_of
from cmtool.pipelines import batching, sampling_pipeline
from cmtool.pipelines.distributed import local_device

KILLING = Path(__file__).with_name("killing.py")


@pytest.fixture(scope="session")
def four(tmp_path_factory):
    """A consistency model of 8x8 grey images of four classes, untrained."""
    return random_model(tmp_path_factory.mktemp("four") / "model.safetensors", (1, 8, 8), 4)


@pytest.fixture
def files(well, four, tmp_path):
    """The files that ``cmtool sample`` leaves in a folder of its own, by name."""

    def call(name, target, *words):
        (tmp_path / name).mkdir(exist_ok=True)
        well("sample", "-m", four, "-n", "30", "-o", f"{tmp_path / name}/{target}", *words)
        return listing(tmp_path / name)

    return call


def killed(four, tmp_path, target, n, kills):
    words = [sys.executable, str(KILLING), str(four), str(tmp_path / target), str(n), str(kills), "0"]
    done = subprocess.run(words, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("target", ["x.tar", "out"])
def test_a_few_kills(four, tmp_path, target):
    told = killed(four, tmp_path, target, 600, 6)
    assert told["kills"] == 6
    assert told["compared"] >= 1


@pytest.mark.slow
@pytest.mark.parametrize("target", ["x.tar", "out", "x.zip", "x.npz", "x.npy"])
def test_two_hundred_kills(four, tmp_path, target):
    told = killed(four, tmp_path, target, 1500, 200)
    assert told["kills"] == 200
    assert told["while_writing"] >= 50
    assert told["compared"] >= 2


@pytest.mark.parametrize("which", ["SIGTERM", "SIGUSR1"])
@pytest.mark.parametrize("target", ["out", "x.tar", "x.zip", "x.npz", "x.npy"])
def test_a_scheduler_stops_it_and_starts_it_again(cm, well, four, tmp_path, monkeypatch, target, which):
    words = ["sample", "-m", four, "-n", "200", "--batch", "64", "--threads", "1", "-o"]
    well(*words, tmp_path / "whole" / target)
    real, drawn = sampling_pipeline.draw, []

    def asked(*inputs):
        drawn.append(len(inputs[2]))
        if len(drawn) == 2:
            signal.raise_signal(getattr(signal, which))
        return real(*inputs)

    monkeypatch.setattr(sampling_pipeline, "draw", asked)
    told = cm(*words, tmp_path / "cut" / target)
    sentence = "stopped with 72 images to go; what was made is kept"
    assert (told.code, told.error) == (75, (sentence, "the same command makes the rest"))
    assert not (tmp_path / "cut" / target).is_file()
    well(*words, tmp_path / "cut" / target)
    assert sum(drawn) == 200
    assert listing(tmp_path / "cut") == listing(tmp_path / "whole")


def test_a_stream_that_cannot_be_taken_up_does_not_wait_for_its_end(tmp_path):
    assert all(resumable(str(tmp_path / name)) for name in ("out", "x.tar", "x.zip", "x.npz", "x.npy"))
    assert not any(resumable(name) for name in ("-", str(tmp_path / "x.png")))


@pytest.mark.parametrize("target", ["out/", "x.tar", "x.zip", "x.npz", "x.npy"])
def test_parts_and_ranks_make_what_one_process_makes(files, target, monkeypatch):
    whole = files("whole", target)
    for k in (2, 3, 1):
        parts = files("parts", target, "--shard", f"{k}/3")
    assert parts == whole
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    for rank in (1, 0):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "2")
        for k in (1, 2):
            ranks = files("ranks", target, "--shard", f"{k}/2")
    assert ranks == whole


def test_a_part_through_a_pipe_and_what_ranks_cannot_be(cm, four, tmp_path, monkeypatch):
    told = cm("sample", "-m", four, "-n", "30", "--shard", "4/3", "-o", tmp_path / "s")
    assert told.error == ("--shard must be K/N with K from 1 to N and N at most 10,000, such as 3/8, not 4/3", "")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "2")
    told = cm("sample", "-m", four, "-n", "30", "-o", tmp_path / "s")
    assert (told.code, told.error[0]) == (2, "RANK=2 and WORLD_SIZE=2 are no rank of a group of processes")


def test_a_rank_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    rank = {"LOCAL_RANK": "6", "TORCHELASTIC_RUN_ID": "none"}
    assert [local_device(name, rank) for name in ("auto", "cuda", "cuda:1", "cpu")] == [
        "cuda:2",
        "cuda:2",
        "cuda:1",
        "cpu",
    ]
    assert local_device("auto", {}) == local_device("auto", {"LOCAL_RANK": "6"}) == "auto"


def test_the_same_again_makes_nothing(cm, four, tmp_path):
    words = ["sample", "-m", four, "-n", "30", "-o", tmp_path / "x.tar", "--grid", tmp_path / "g.png", "--json"]
    first = cm(*words)
    sheet, images = pixels(tmp_path / "g.png"), (tmp_path / "x.tar").read_bytes()
    (tmp_path / "g.png").unlink()
    again = cm(*words)
    assert (json.loads(first.out)["made"], json.loads(again.out)["made"]) == (30, 0)
    assert "30 of them are there already" in again.err
    assert np.array_equal(pixels(tmp_path / "g.png"), sheet)
    assert (tmp_path / "x.tar").read_bytes() == images


def test_the_manifest(files, four):
    lines = [json.loads(line) for line in files("out", "", "--steps", "2")["manifest.jsonl"].splitlines()]
    assert [line["seed"] for line in lines] == list(range(30))
    assert [line["class"] for line in lines] == [seed % 4 for seed in range(30)]
    assert {line["model"] for line in lines} == {read_header(four).sha256}
    assert all(len(line["sigmas"]) == 2 for line in lines)
    beside = files("tar", "x.tar", "--steps", "2")["x.tar.manifest.jsonl"]
    assert [json.loads(line) for line in beside.splitlines()] == lines


def test_other_levels_are_other_images(files):
    one, two = files("out", ""), files("out", "", "--steps", "2")
    assert two == files("other", "", "--steps", "2")
    assert one["00000003.png"] != two["00000003.png"]


@pytest.mark.parametrize("threads", ["1", "2"])
def test_fewer_at_a_time_when_memory_runs_out(files, monkeypatch, threads):
    whole = files("whole", "", "-n", "600", "--threads", threads)
    real, seen = sampling_pipeline.draw, []

    def short(model, plan, noise, labels, cores, pixels):
        seen.append((len(noise), cores))
        if len(seen) in (2, 3):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(model, plan, noise, labels, cores, pixels)

    monkeypatch.setattr(sampling_pipeline, "draw", short)
    monkeypatch.setattr(batching, "DEFAULT_BATCH", 256)
    assert files("short", "", "-n", "600", "--threads", threads) == whole
    assert [count for count, _ in seen[:4]] == [256, 256, 128, 64]


def test_when_not_even_a_piece_fits(cm, four, tmp_path, monkeypatch):
    def never(*_):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")

    monkeypatch.setattr(sampling_pipeline, "draw", never)
    told = cm("sample", "-m", four, "-o", tmp_path / "s")
    assert (told.code, told.error[0]) == (71, "not even 64 images at a time fit into memory")
    told = cm("sample", "-m", four, "-o", tmp_path / "s", "--batch", "16")
    assert (told.code, told.error) == (71, ("there is not enough memory", "a smaller --batch needs less"))


def test_uniform_classes_come_from_the_seed(files):
    labels = dict(json.loads(files("out", "", "--classes", "uniform", "--seeds", "0-399")["dataset.json"])["labels"])
    drawn = (Noise(range(400)).uniform(LABEL) * 4).long().tolist()
    assert labels == {f"{seed:08d}.png": drawn[seed] for seed in range(400)}
    assert all(70 <= count <= 130 for count in Counter(drawn).values())
    some = json.loads(files("some", "", "--classes", "uniform", "--seeds", "7,300-302")["dataset.json"])["labels"]
    assert all(labels[name] == label for name, label in some)


def test_classes_of_a_file(files, cm, four, tmp_path):
    (tmp_path / "classes.txt").write_text("3\nclass 1\n\n0\n")
    labels = dict(json.loads(files("out", "", "--classes", tmp_path / "classes.txt")["dataset.json"])["labels"])
    assert list(labels.values()) == [3, 1, 0] * 10
    (tmp_path / "classes.txt").write_text("3\n7\n")
    told = cm("sample", "-m", four, "--classes", tmp_path / "classes.txt")
    assert (told.code, told.error[0]) == (2, f"line 2 of {tmp_path / 'classes.txt'}: there is no class 7")
    (tmp_path / "classes.txt").write_text("\n")
    assert cm("sample", "-m", four, "--classes", tmp_path / "classes.txt").code == 2
    assert cm("sample", "-m", four, "--classes", tmp_path / "none.txt").code == 66


def test_classes_that_cannot_be(cm, four, rgb):
    told = cm("sample", "-m", four, "--class", "1", "--classes", "uniform")
    assert (told.code, told.error[0]) == (2, "--class is one class and --classes a rule for many")
    told = cm("sample", "-m", rgb, "--classes", "uniform")
    assert told.error[0] == "this model was trained without classes and takes no --classes"


def test_every_format_holds_the_same_images(files, tmp_path):
    for name in ("out/", "x.tar", "x.zip", "x.npz", "x.npy", "x.png"):
        files("all", name)
    first = next(iter(images_of(tmp_path / "all" / "out", 30)))
    for name in ("x.tar", "x.zip", "x.npz", "x.npy", "x.png"):
        found = next(iter(images_of(tmp_path / "all" / name, 30)))
        assert np.array_equal(found.images, first.images), name
        if name != "x.npy":  # which has no place for labels
            assert np.array_equal(found.labels, first.labels), name


def test_a_picture_in_the_terminal(cm, four, tmp_path):
    told = cm("sample", "-m", four, "-n", "4", "-o", tmp_path / "s", "--show")
    lines = [line for line in told.err.splitlines() if set(line) <= set("▀▄█ ") and line]
    assert len(lines) == 5  # a row of 8 pixels between two lines: 10, two to a character
    assert {len(line) for line in lines} == {37}
    assert told.out == f"{tmp_path / 's'}\n"
    assert "▀" not in cm("sample", "-m", four, "-n", "4", "-o", tmp_path / "s").err


def test_half_blocks():
    black, white = np.zeros((1, 2, 2), np.uint8), np.full((1, 2, 2), 255, np.uint8)
    assert draw_picture(black, colour=False) == "  "
    assert draw_picture(white, colour=False) == "██"
    assert draw_picture(np.array([[[0, 255], [255, 0], [0, 0]]], np.uint8), colour=False) == "▄▀\n▄▄"
    grey = draw_picture(np.full((1, 32, 32), 128, np.uint8), colour=False)
    share = sum({"█": 2, "▀": 1, "▄": 1}.get(sign, 0) for sign in grey) / 1024
    assert share == pytest.approx(128 / 255, abs=0.04)
    picture = np.arange(6, dtype=np.uint8).reshape(3, 2, 1)
    assert draw_picture(picture, colour=True) == "\033[38;2;0;2;4m\033[48;2;1;3;5m▀\033[0m"
