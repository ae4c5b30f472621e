import json
import os
import signal
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from tiny import NETWORK, TINY, listing

from cmtool.files.checkpoint import load, save
from cmtool.files.header import read_header
from cmtool.files.runs import read_status

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
        f"go on with: cmtool {command} --resume {run}",
    )
    status = read_status(run)
    assert (status["state"], status["images"]) == ("interrupted", 64)
    assert read_header(run / "model.safetensors", whole=True).images == 64

    told = cm(command, "--resume", run)
    assert told.code == 0, told.err
    assert f"going on with {run} at 64 images" in told.err
    whole, taken_up = listing(tmp_path / "whole"), listing(run)
    for name in ("model.safetensors", "state.safetensors", "config.yaml", "samples/00000128.png"):
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
    assert told.error[1] == f"go on with: cmtool train-ct --resume {tmp_path / 'run'}"
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
    told = cm("train-ct", "-d", "digits", *TINY, "--snapshots", "2", "--run-dir", tmp_path / "run")
    assert told.code == 1
    status = read_status(tmp_path / "run")
    assert (status["state"], status["images"]) == ("failed", 96)
    told = cm("train-ct", "--resume", tmp_path / "run", "--snapshots", "1")
    assert (told.code, "at 64 images" in told.err) == (0, True)
    # the same weights; the files differ in the option snapshots
    ours, theirs = (load_file(run / "model.safetensors") for run in (tmp_path / "run", trained["tuned"]))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_run_killed_before_its_first_save_says_so(cm, at, tmp_path):
    at(32, lambda walk: 1 / 0)
    run = tmp_path / "run"
    assert cm("train-ct", "-d", "digits", *TINY, "--run-dir", run).code == 1
    told = cm("train-ct", "--resume", run)
    again = f"start it again: cmtool train-ct --config {run / 'config.yaml'}"
    assert (told.code, told.error) == (66, (f"{run} was stopped before its first save", again))


def test_a_finished_run_says_that_it_is(cm, trained):
    before = listing(trained["tuned"])
    told = cm("train-ct", "--resume", trained["tuned"])
    assert told.code == 0
    assert f"{trained['tuned']} has finished already" in told.err
    assert told.out == f"{trained['tuned'] / 'model.safetensors'}\n"
    assert listing(trained["tuned"]) == before


def test_what_cannot_change_on_the_way_is_named(cm, stopped, tmp_path):
    run = tmp_path / "run"
    stopped("train-ct", "-d", "digits", *TINY)
    told = cm("train-ct", "--resume", run, "--lr", "1", "--set", "backbone.width=32", "--threads", "1")
    assert (told.code, told.error[0]) == (2, f"{run} was started with another lr and another backbone")
    told = cm("train-score", "--resume", run)
    assert (told.code, told.error) == (
        2,
        (f"{run} is a run of train-ct", f"go on with it by: cmtool train-ct --resume {run}"),
    )
    assert read_status(run)["state"] == "interrupted"


def test_a_run_that_is_not_there(cm, trained, tmp_path):
    for run in (tmp_path / "nowhere", trained["tuned"] / "model.safetensors", trained["tuned"].parent):
        told = cm("train-ct", "--resume", run)
        assert (told.code, told.error[0]) == (66, f"there is no run {run}")


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
    save(tmp_path / "teacher.safetensors", model, model.header)
    stopped("distill", "-t", tmp_path / "teacher.safetensors", "-d", "digits", *TINY[len(NETWORK) :])
    with torch.no_grad():
        next(model.parameters()).add_(1e-3)
    save(tmp_path / "teacher.safetensors", model, model.header)
    told = cm("distill", "--resume", tmp_path / "run")
    sentence = f"{tmp_path / 'teacher.safetensors'} is not the file that {tmp_path / 'run'} was started with"
    assert (told.code, told.error[0]) == (2, sentence)
