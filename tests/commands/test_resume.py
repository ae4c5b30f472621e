import json
import math
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tiny import NETWORK, TINY, listing

from cmtool.files.checkpoint import load, save
from cmtool.files.header import read_header
from cmtool.files.runs import read_status

SAME = ("model.safetensors", "states/00000128.safetensors", "config.yaml", "metrics.jsonl", "samples/00000128.png")
LOCK = "import fcntl,sys,time; f=open(sys.argv[1],'a'); fcntl.flock(f,2); f.write('process 7 on moon\\n'); f.flush()"


def start(command, trained):
    """The words of a short run that draws on everything that must be taken up again."""
    random = ["-d", "digits", "--set", "backbone.dropout=0.1", "--flip", *TINY]
    return {
        "train-score": ["train-score", *random],
        "train-ct": ["train-ct", "--method", "ct", *random],
        "distill": ["distill", "-t", trained["teacher"], "-d", "digits", *TINY[len(NETWORK) :]],
    }[command]


@pytest.mark.parametrize("command", ["train-score", "train-ct", "distill"])
def test_an_interrupted_run_goes_on_to_the_same_bits(cm, stopped, trained, tmp_path, command):
    words = start(command, trained)
    assert cm(*words, "--run-dir", tmp_path / "whole").code == 0
    told = stopped(*words)
    run = tmp_path / "run"
    assert told.code == 130
    assert told.error == (
        f"stopped at 64 of 128 images; all is saved in {run}",
        f"go on with: cmtool {command} --run-dir {run}",
    )
    status = read_status(run)
    assert (status["state"], status["images"]) == ("interrupted", 64)
    assert read_header(run / "model.safetensors", whole=True).images == 64

    told = cm(*words, "--run-dir", run)  # the same command
    assert told.code == 0, told.err
    assert f"going on with {run} at 64 images" in told.err
    whole, taken_up = listing(tmp_path / "whole"), listing(run)
    for name in SAME:
        assert taken_up[name] == whole[name], name
    images = [json.loads(line)["images"] for line in taken_up["metrics.jsonl"].splitlines()]
    assert images == [32, 64, 96, 128]


@pytest.mark.parametrize("which", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_a_scheduler_is_told_to_start_it_again(cm, stopped, tmp_path, which):
    before = signal.signal(which, signal.SIG_DFL)  # also where the tests themselves run under nohup
    try:
        told = stopped("train-ct", "-d", "digits", *TINY, by=which)
    finally:
        signal.signal(which, before)
    assert told.code == 75
    assert told.error[1] == f"go on with: cmtool train-ct --run-dir {tmp_path / 'run'}"
    assert read_status(tmp_path / "run")["state"] == "preempted"
    assert cm("train-ct", "--resume", tmp_path / "run").code == 0


def test_nohup_is_respected(stopped, tmp_path):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert stopped("train-ct", "-d", "digits", *TINY, by=signal.SIGHUP).code == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_second_ctrl_c_does_not_wait(cm, at, tmp_path):
    at(64, lambda walk: [os.kill(os.getpid(), signal.SIGINT) for _ in range(2)])
    told = cm("train-ct", "-d", "digits", *TINY, "--run-dir", tmp_path / "run")
    assert (told.code, told.error[0]) == (130, "interrupted")
    assert read_status(tmp_path / "run")["state"] == "interrupted"


def test_a_killed_run_goes_on_from_its_last_save(cm, at, trained, tmp_path):
    class Killed(BaseException):
        pass

    def kill(walk):
        raise Killed

    at(96, kill)
    told = cm("train-ct", "-d", "digits", *TINY, "--save-every", "64img", "--run-dir", tmp_path / "run")
    assert told.code == 1
    status = read_status(tmp_path / "run")
    assert (status["state"], status["images"]) == ("failed", 96)
    told = cm("train-ct", "--resume", tmp_path / "run")
    assert (told.code, "at 64 images" in told.err) == (0, True)
    # the same weights; the files differ in the option save_every
    ours, theirs = (load_file(run / "model.safetensors") for run in (tmp_path / "run", trained["tuned"]))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_run_killed_before_its_first_save_goes_on_from_its_beginning(cm, at, trained, tmp_path):
    at(32, lambda walk: 1 / 0)
    run = tmp_path / "run"
    assert cm("train-ct", "-d", "digits", *TINY, "--run-dir", run).code == 1
    assert read_status(run)["exit_code"] == 1
    told = cm("train-ct", "--run-dir", run)
    assert (told.code, f"going on with {run} at 0 images" in told.err) == (0, True)
    ours, theirs = listing(run), listing(trained["tuned"])
    assert ours.keys() == theirs.keys()
    assert all(ours[name] == theirs[name] for name in SAME)


@pytest.mark.parametrize("how", [["--resume"], ["-d", "digits", *TINY, "--run-dir"]], ids=["resume", "again"])
def test_a_finished_run_says_that_it_is(cm, trained, how):
    before = listing(trained["tuned"])
    told = cm("train-ct", *how, trained["tuned"])
    assert told.code == 0
    assert f"{trained['tuned']} has finished already" in told.err
    assert told.out == f"{trained['tuned'] / 'model.safetensors'}\n"
    assert listing(trained["tuned"]) == before


def test_what_cannot_change_on_the_way_is_named(cm, stopped, tmp_path):
    run = tmp_path / "run"
    stopped("train-ct", "-d", "digits", *TINY)
    told = cm("train-ct", "--resume", run, "--lr", "1", "--set", "backbone.model_channels=32", "--threads", "1")
    changes = "lr: 0.003 -> 1.0; backbone.model_channels: 16 -> 32"
    assert (told.code, told.error[0]) == (2, f"{run} was started with other options: {changes}")
    assert told.error[1].startswith("leave that out, or choose another --run-dir")
    told = cm("train-score", "--resume", run)
    assert (told.code, told.error) == (
        2,
        (f"{run} is a run of train-ct", f"go on with it by: cmtool train-ct --resume {run}"),
    )
    assert cm("train-score", *TINY, "--run-dir", run).error[1] == f"go on with it by: cmtool train-ct --run-dir {run}"
    assert read_status(run)["state"] == "interrupted"


def test_a_run_that_is_not_there(cm, trained, tmp_path):
    for run in (tmp_path / "nowhere", trained["tuned"] / "model.safetensors", trained["tuned"].parent):
        told = cm("train-ct", "--resume", run)
        assert (told.code, told.error[0]) == (66, f"there is no run {run}")


def test_resume_insists_where_run_dir_would_begin_anew(cm, stopped, tmp_path):
    """Of a run that was copied without what marks it as one; and of two runs, none is meant."""
    run = tmp_path / "run"
    stopped("train-ct", "-d", "digits", *TINY)
    for mark in (".lock", "status.json"):
        (run / mark).unlink()
    assert cm("train-ct", "-d", "digits", *TINY, "--run-dir", run).error[0] == f"{run} is not empty"
    told = cm("train-ct", "--resume", run, "--run-dir", tmp_path / "other")
    assert (told.code, told.error[0]) == (2, f"two runs are named, {run} and {tmp_path / 'other'}")
    told = cm("train-ct", "--resume", run, "--run-dir", run)
    assert (told.code, f"going on with {run} at 64 images" in told.err) == (0, True)


def test_a_preset_and_a_file_of_options_may_be_given_again(cm, at, tmp_path):
    """Another preset is another run; what the user's own file says later changes nothing."""
    words = ["train-score", "--preset", "digits-cpu", "--images", "64", "--batch", "32", "--snapshots", "0"]
    at(32, lambda walk: os.kill(os.getpid(), signal.SIGINT))
    assert cm(*words, "--run-dir", tmp_path / "run").code == 130
    (tmp_path / "more.yaml").write_text("lr: 0.5\n")
    told = cm(*words, "-c", tmp_path / "more.yaml", "--run-dir", tmp_path / "run")
    assert (told.code, "-> 0.5" in told.error[0]) == (2, True)
    assert cm(*words, "--run-dir", tmp_path / "run").code == 0


def test_one_process_at_a_time(cm, stopped, tmp_path):
    run = tmp_path / "run"
    stopped("train-ct", "-d", "digits", *TINY)
    (run / ".lock").write_text("")
    program = f"{LOCK}; print('held', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", program, run / ".lock"], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        told = cm("train-ct", "--resume", run)
        other.kill()
    assert (told.code, told.error[0]) == (2, f"{run} is being written by process 7 on moon")
    assert cm("train-ct", "--resume", run).code == 0


def test_another_teacher_is_noticed(cm, stopped, trained, tmp_path):
    model = load(trained["teacher"] / "model.safetensors")
    save(tmp_path / "teacher.safetensors", model.model, model.header)
    stopped("distill", "-t", tmp_path / "teacher.safetensors", "-d", "digits", *TINY[len(NETWORK) :])
    with torch.no_grad():
        next(model.model.parameters()).add_(1e-3)
    save(tmp_path / "teacher.safetensors", model.model, model.header)
    told = cm("distill", "--resume", tmp_path / "run")
    sentence = f"{tmp_path / 'teacher.safetensors'} is not the file that {tmp_path / 'run'} was started with"
    assert (told.code, told.error[0]) == (2, sentence)


@pytest.fixture
def pets(tmp_path):
    """Two folders of classes, 24 grey pictures each."""
    for k, name in enumerate(("cat", "dog")):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for i in range(24):
            pixels = np.random.default_rng(100 * k + i).integers(0, 256, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pets" / name / f"{i:02d}.png")
    return tmp_path / "pets"


def test_data_may_have_moved(cm, stopped, pets, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cm("train-ct", "-d", "./pets[0:40]", *TINY, "--run-dir", "whole").code == 0
    stopped("train-ct", "-d", "./pets[0:40]", *TINY)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    pets.rename(tmp_path / "animals")
    told = cm("train-ct", "--resume", "../run")
    assert (told.code, told.error[0]) == (66, f"there is no folder or file {pets}")
    moved, source = told.error[1].split("; ")
    assert moved == "if the data have moved: cmtool train-ct --run-dir ../run --data WHERE"
    lines = (tmp_path / "run" / "config.yaml").read_text().splitlines()
    line = 1 + next(i for i, text in enumerate(lines) if text.startswith("data:"))
    assert source == f"--data was set by 'data' in ../run/config.yaml, line {line}"
    told = cm("train-ct", "--resume", "../run", "--data", "../animals")
    assert told.code == 0, told.err
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("run", "whole"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert read_header(tmp_path / "run" / "model.safetensors").options["data"] == {
        "name": "folder",
        "source": str(tmp_path / "animals"),
        "slice": "0:40",
    }


CHANGES = {
    "a class more": (
        lambda pets: shutil.copytree(pets / "dog", pets / "bird"),
        "the classes were cat, dog, and are bird",
    ),
    "a class renamed": (lambda pets: (pets / "cat").rename(pets / "kitten"), "were cat, dog, and are dog, kitten"),
    "a picture less": (lambda pets: (pets / "cat" / "03.png").unlink(), "cat/03.png is gone"),
    "a picture more": (lambda pets: shutil.copy(pets / "cat/03.png", pets / "cat/99.png"), "cat/99.png is new"),
    "another picture": (lambda pets: Image.new("L", (8, 8)).save(pets / "dog/00.png"), "dog/00.png has changed"),
    "other sizes": (
        lambda pets: [Image.new("L", (9, 9)).save(p) for p in pets.rglob("*.png")],
        "were of 1x8x8, and are",
    ),
    "one class": (lambda pets: shutil.rmtree(pets / "cat"), "the classes were cat, dog, and are none"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_other_data_are_refused(cm, stopped, pets, tmp_path, change):
    stopped("train-ct", "-d", pets, *TINY)
    make, said = CHANGES[change]
    make(pets)
    before = listing(tmp_path / "run")
    told = cm("train-ct", "--resume", tmp_path / "run")
    assert told.code == 2
    assert told.error[0].startswith(f"the data are not those that {tmp_path / 'run'} was started with: ")
    assert said in told.error[0]
    assert listing(tmp_path / "run") == before


def test_a_damaged_picture_stops_a_run_with_what_was_learned_saved(cm, pets, tmp_path):
    run, broken = tmp_path / "run", pets / "dog" / "21.png"
    words = ["train-score", "-d", pets, *TINY, "--images", "64", "--batch", "4"]
    assert cm(*words, "--run-dir", tmp_path / "whole").code == 0
    whole = broken.read_bytes()
    broken.write_bytes(whole[:-20])
    told = cm(*words, "--run-dir", run)
    assert told.code == 65
    status = read_status(run)
    assert status["state"] == "failed"
    assert 0 < status["images"] < 48
    assert told.error[0].startswith(f"{broken} is damaged")
    assert told.error[0].endswith(f"stopped at {status['images']} of 64 images, all is saved in {run}")
    assert told.error[1] == f"mend it, then go on with: cmtool train-score --run-dir {run}"
    assert cm("train-score", "--resume", run).code == 65
    broken.write_bytes(whole)
    told = cm("train-score", "--resume", run)
    assert told.code == 0, told.err
    ours, theirs = (load_file(path / "model.safetensors") for path in (run, tmp_path / "whole"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_damaged_picture_may_be_replaced_by_another(cm, pets, tmp_path):
    words = ["train-score", "-d", pets, *TINY, "--images", "64", "--batch", "4", "--run-dir", tmp_path / "run"]
    (pets / "dog" / "21.png").write_bytes((pets / "dog" / "21.png").read_bytes()[:-20])
    assert cm(*words).code == 65
    shutil.copy(pets / "dog" / "20.png", pets / "dog" / "21.png")
    shutil.copy(pets / "dog" / "20.png", pets / "cat" / "01.png")
    told = cm("train-score", "--resume", tmp_path / "run")
    assert (told.code, "cat/01.png has changed" in told.error[0]) == (2, True)


def test_a_finished_run_goes_on_to_more_images(cm, trained, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained["tuned"], run)
    told = cm("train-ct", "--resume", run, "--images", "192")
    assert told.code == 0, told.err
    assert read_header(run / "model.safetensors", whole=True).images == 192
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["images"] for line in lines] == [32, 64, 96, 128, 160, 192]
    # the rate is that of a run of 192 images from where the first one ended: cosine at 128 / 192
    assert lines[4]["lr"] == pytest.approx(3e-3 * (1 + math.cos(math.pi * 128 / 192)) / 2)
    told = cm("train-ct", "--resume", run)
    assert (told.code, f"{run} has finished already" in told.err) == (0, True)
    told = cm("train-ct", "--resume", run, "--images", "64")
    assert (told.code, told.error[0]) == (2, f"{run} has seen 192 images already, more than --images 64")
    assert told.error[1] == f"to go on give more: cmtool train-ct --run-dir {run} --images 384"


def test_an_interrupted_run_can_become_longer(cm, stopped, tmp_path):
    stopped("train-ct", "-d", "digits", *TINY)
    assert cm("train-ct", "--resume", tmp_path / "run", "--images", "160").code == 0
    assert read_header(tmp_path / "run" / "model.safetensors").images == 160
    assert "images: 160" in (tmp_path / "run" / "config.yaml").read_text()
