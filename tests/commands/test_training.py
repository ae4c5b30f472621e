import json
import os
import signal
import subprocess
import sys

import pytest
import torch
import yaml
from safetensors.torch import load_file
from tiny import NETWORK, TINY, listing, pixels

from cmtool.commands import train
from cmtool.files.header import read_header
from cmtool.files.runs import read_status
from cmtool.objectives.consistency import Consistency

LOCK = "import fcntl,sys,time; f=open(sys.argv[1],'a'); fcntl.flock(f,2); f.write('process 7 on moon\\n'); f.flush()"


@pytest.fixture
def at(monkeypatch):
    """Do something, once, after the step that reaches a number of images."""

    def arrange(images, action):
        step, done = train.Walk.step, []

        def wrapped(self, report, *rest):
            step(self, report, *rest)
            if report.images == images and not done:
                done.append(images)
                action(self)

        monkeypatch.setattr(train.Walk, "step", wrapped)

    return arrange


@pytest.fixture
def stopped(cm, at, tmp_path):
    """A run that Ctrl-C stopped at 64 of 128 images; what it said."""

    def call(*argv, by=signal.SIGINT, name="run"):
        at(64, lambda walk: os.kill(os.getpid(), by))
        return cm(*argv, "--run", tmp_path / name)

    return call


def start(command, trained):
    """The words of a short run that draws on everything that must be taken up again."""
    random = ["-d", "digits", "--set", "backbone.dropout=0.1", "--flip", *TINY]
    return {
        "train-score": ["train-score", *random],
        "train-ct": ["train-ct", "--method", "ct", *random],
        "distill": ["distill", "-t", trained["teacher"], "-d", "digits", *TINY[len(NETWORK) :]],
    }[command]


def test_a_run_directory_holds_what_was_done(trained):
    run = trained["ect"]
    names = {"config.yaml", "metrics.jsonl", "model.safetensors", "state.safetensors", "status.json", ".lock"}
    assert set(listing(run)) == names | {"samples/00000128.png"}
    assert pixels(run / "samples" / "00000128.png").shape == (4 * 66 + 2, 10 * 66 + 2)

    config = yaml.safe_load((run / "config.yaml").read_text())
    assert (config["data"], config["batch"], config["lr"]) == ("digits", 32, 0.003)
    assert config["method"]["name"] == "ect"
    assert config["backbone"] == {"name": "unet", "width": 16, "mults": [1], "blocks": 1}

    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["images"] for line in lines] == [32, 64, 96, 128]
    assert all(line["loss"] > 0 and line["gradient"] > 0 and line["skipped"] == 0 for line in lines)
    assert lines[0]["lr"] == 0.003
    assert read_status(run)["state"] == "finished"


def test_a_checkpoint_says_where_it_comes_from(trained):
    teacher, student = (read_header(trained[name] / "model.safetensors", whole=True) for name in ("teacher", "student"))
    assert (teacher.kind, teacher.method, teacher.images) == ("score", "train-score edm", 128)
    assert (student.kind, student.method, student.conditional) == ("consistency", "distill cd", 10)
    assert student.preconditioning == {"sigma_data": 0.5, "sigma_min": 0.002, "time": "log", "sign": 1.0}
    assert teacher.preconditioning["sigma_min"] == 0.0
    (parent,) = student.parents
    assert parent["path"] == str(trained["teacher"] / "model.safetensors")
    assert student.backbone == teacher.backbone
    assert "UCI" in student.data["notice"]


def test_the_config_of_a_run_makes_the_same_run(well, trained, tmp_path):
    well("train-ct", "-c", trained["ect"] / "config.yaml", "--run", tmp_path / "again")
    for name in ("model.safetensors", "state.safetensors", "config.yaml", "samples/00000128.png"):
        assert (tmp_path / "again" / name).read_bytes() == (trained["ect"] / name).read_bytes()


def test_a_dry_run_writes_nothing(well, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    document = json.loads(well("train-ct", "-d", "digits", *TINY, "--dry-run", "--json"))
    assert listing(tmp_path) == {}
    assert (document["images"], document["steps"], document["data"]["shape"]) == (128, 4, [1, 8, 8])
    net = document["parameters"]
    well("train-ct", "-d", "digits", *TINY, "--run", "run")
    tensors = load_file("run/model.safetensors")
    buffers = sum(t.numel() for name, t in tensors.items() if name.endswith("frequencies"))
    assert net == sum(t.numel() for t in tensors.values()) - buffers
    assert (tmp_path / "run" / "state.safetensors").stat().st_size == pytest.approx(document["state_bytes"], rel=0.2)
    assert (tmp_path / "run" / "model.safetensors").stat().st_size == pytest.approx(
        document["checkpoint_bytes"], rel=0.2
    )


@pytest.mark.parametrize("command", ["train-score", "train-ct", "distill"])
def test_an_interrupted_run_goes_on_to_the_same_bits(cm, stopped, trained, tmp_path, command):
    words = start(command, trained)
    assert cm(*words, "--run", tmp_path / "whole").code == 0
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
    told = stopped("train-ct", "-d", "digits", *TINY, by=which)
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
    told = cm("train-ct", "-d", "digits", *TINY, "--run", tmp_path / "run")
    assert (told.code, told.error[0]) == (130, "interrupted")
    assert read_status(tmp_path / "run")["state"] == "interrupted"


def test_a_killed_run_goes_on_from_its_last_save(cm, at, trained, tmp_path):
    class Killed(BaseException):
        pass

    def kill(walk):
        raise Killed

    at(96, kill)
    told = cm("train-ct", "-d", "digits", *TINY, "--snapshots", "2", "--run", tmp_path / "run")
    assert told.code == 1
    status = read_status(tmp_path / "run")
    assert (status["state"], status["images"]) == ("failed", 96)
    told = cm("train-ct", "--resume", tmp_path / "run", "--snapshots", "1")
    assert (told.code, "at 64 images" in told.err) == (0, True)
    # the same weights; the files differ in the option snapshots
    ours, theirs = (load_file(run / "model.safetensors") for run in (tmp_path / "run", trained["ect"]))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_run_killed_before_its_first_save_says_so(cm, at, tmp_path):
    at(32, lambda walk: 1 / 0)
    run = tmp_path / "run"
    assert cm("train-ct", "-d", "digits", *TINY, "--run", run).code == 1
    told = cm("train-ct", "--resume", run)
    again = f"start it again: cmtool train-ct --config {run / 'config.yaml'}"
    assert (told.code, told.error) == (66, (f"{run} was stopped before its first save", again))


def test_a_finished_run_says_that_it_is(cm, trained):
    before = listing(trained["ect"])
    told = cm("train-ct", "--resume", trained["ect"])
    assert told.code == 0
    assert f"{trained['ect']} has finished already" in told.err
    assert told.out == f"{trained['ect'] / 'model.safetensors'}\n"
    assert listing(trained["ect"]) == before


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
    for run in (tmp_path / "nowhere", trained["ect"] / "model.safetensors", trained["ect"].parent):
        told = cm("train-ct", "--resume", run)
        assert (told.code, told.error[0]) == (66, f"there is no run {run}")


def test_a_new_run_leaves_an_old_one_alone(cm, trained):
    before = listing(trained["ect"])
    told = cm("train-ct", "-d", "digits", *TINY, "--run", trained["ect"])
    assert (told.code, told.error[0]) == (2, f"{trained['ect']} is not empty")
    assert f"--resume {trained['ect']}" in told.error[1]
    assert listing(trained["ect"]) == before


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


def test_numbers_that_are_not_finite_stop_a_run_with_its_weights_kept(cm, stopped, tmp_path, monkeypatch):
    words = ["train-ct", "-d", "digits", *TINY, "--images", "512"]
    stopped(*words, name="good")
    good = load_file(tmp_path / "good" / "model.safetensors")
    loss = Consistency.loss

    def poisoned(self, model, batch, progress):
        return loss(self, model, batch, progress) * (float("nan") if progress >= 64 / 512 else 1)

    monkeypatch.setattr(Consistency, "loss", poisoned)
    run = tmp_path / "bad"
    told = cm(*words, "--run", run)
    assert told.code == 70
    sentence = f"the last 5 gradients were not finite; the weights before them are in {run}"
    assert told.error == (sentence, "start again with a lower learning rate, --lr 0.001, or with --clip 1")
    status = read_status(run)
    assert (status["state"], status["images"], status["skipped"]) == ("failed", 64 + 5 * 32, 5)
    kept = load_file(run / "model.safetensors")
    assert all(torch.equal(kept[name], good[name]) for name in good)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["loss"] is None


def test_a_few_steps_that_are_not_finite_are_left_out(cm, tmp_path, monkeypatch):
    loss = Consistency.loss

    def poisoned(self, model, batch, progress):
        return loss(self, model, batch, progress) * (float("inf") if progress == 0.25 else 1)

    monkeypatch.setattr(Consistency, "loss", poisoned)
    told = cm("train-ct", "-d", "digits", *TINY, "--run", tmp_path / "run", "--json")
    assert told.code == 0
    assert json.loads(told.out)["skipped"] == 1
    assert all(torch.isfinite(t).all() for t in load_file(tmp_path / "run" / "state.safetensors").values())


def test_too_little_memory_is_said_in_one_sentence(cm, tmp_path, monkeypatch):
    def loss(*args):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Consistency, "loss", loss)
    told = cm("train-ct", "-d", "digits", *TINY, "--run", tmp_path / "run")
    assert (told.code, told.error[0]) == (71, "there is not enough memory")
    assert read_status(tmp_path / "run")["state"] == "failed"


def test_a_run_says_that_it_is_running(cm, at, tmp_path):
    seen = []
    at(64, lambda walk: seen.append(read_status(walk.folder)["state"]))
    assert cm("train-ct", "-d", "digits", *TINY, "--run", tmp_path / "run").code == 0
    assert seen == ["running"]


def test_smaller_pieces_take_the_same_steps(well, tmp_path):
    words = [
        "train-ct",
        "-d",
        "digits",
        *NETWORK,
        "--images",
        "96",
        "--batch",
        "32",
        "--lr",
        "1e-3",
        "--snapshots",
        "0",
    ]
    well(*words, "--run", tmp_path / "whole")
    well(*words, "--micro-batch", "8", "--run", tmp_path / "pieces")
    whole, pieces = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "pieces"))
    assert max(float((whole[name] - pieces[name]).abs().max()) for name in whole) < 1e-5


@pytest.mark.parametrize("init", ["teacher", "ect"])
def test_training_starts_from_given_weights(well, trained, tmp_path, init):
    words = ["train-ct", "--init", trained[init], "-d", "digits", *TINY[len(NETWORK) :], "--lr", "1e-30"]
    well(*words, "--run", tmp_path / "run")
    before, after = (load_file(run / "model.safetensors") for run in (trained[init], tmp_path / "run"))
    assert all(torch.equal(before[name], after[name]) for name in before)
    (parent,) = read_header(tmp_path / "run" / "model.safetensors").parents
    assert parent["path"] == str(trained[init] / "model.safetensors")


def test_a_run_without_a_name_gets_one(well, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = well("train-score", "-d", "digits", *TINY, "--images", "32").strip()
    assert path.startswith("runs/train-score/")
    assert "-digits-" in path
    assert (tmp_path / path).is_file()


def test_a_labelled_set_can_be_learned_without_its_labels(well, cm, tmp_path):
    well("train-ct", "-d", "digits", *TINY, "--images", "32", "--no-conditional", "--run", tmp_path / "run")
    assert read_header(tmp_path / "run" / "model.safetensors").conditional == 0
    told = cm("sample", "-m", tmp_path / "run", "--class", "3")
    assert (told.code, told.error[0]) == (2, "this model was trained without classes and takes no --class")
