"""A run that was stopped anywhere and goes on ends bit for bit where one ends that was not."""

import json
import os
import random
import shutil
import signal

import pytest
import torch
from safetensors.torch import load_file
from tiny import NETWORK, TINY, listing

from cmtool.commands.training import metrics, numerics
from cmtool.files.runs import read_status
from cmtool.files.sealed import load_state, save_state

# 13 steps on a part of the data that is seen twice, each of three micro-batches
SIZES = ["--images", "312", "--batch", "24", "--micro-batch", "8", "--snapshots", "2", "--warmup", "100"]
EMA = ["--ema", "64,power:0.1", "--ema-snapshots", "3", "--lr", "3e-3", "-d", "digits[:150]", "--label-dropout", "0.2"]


def words(command, trained):
    random_parts = [*NETWORK, "--set", "backbone.dropout=0.1", "--flip"]
    return {
        "train-score": ["train-score", *random_parts, "--optimizer", "radam"],
        "train-ct": ["train-ct", "--method", "ct", *random_parts],
        "distill": ["distill", "--method", "cd", "-t", trained["teacher"], "--flip"],
    }[command] + [*SIZES, *EMA]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("command", ["train-score", "train-ct", "distill"])
def test_stopped_three_times(cm, at, trained, tmp_path, monkeypatch, command, precision):
    monkeypatch.setattr(metrics, "LINES", 4)  # a line is a mean over three steps or four
    call = [*words(command, trained), "--precision", precision]
    assert cm(*call, "--run-dir", tmp_path / "whole").code == 0
    for images in sorted(random.Random(f"{command} {precision}").sample(range(24, 312, 24), 3)):
        at(images, lambda walk: os.kill(os.getpid(), signal.SIGINT))
        told = cm(*call, "--run-dir", tmp_path / "run")
        assert (told.code, read_status(tmp_path / "run")["images"]) == (130, images)
    told = cm(*call, "--run-dir", tmp_path / "run")
    assert told.code == 0, told.err
    assert "warning" not in told.err
    ours, theirs = listing(tmp_path / "run"), listing(tmp_path / "whole")
    same = [name for name in theirs if name not in ("status.json", "timing.jsonl", ".lock")]
    assert {"model.safetensors", "metrics.jsonl", "states/00000312.safetensors", "ema/power-0.1.safetensors"} <= {*same}
    assert [name for name in same if ours.get(name) != theirs[name]] == []


def test_threads_change_no_bit_of_a_run(cm, trained, tmp_path):
    """Augmentation and all, so that nobody has to remember how many there were."""
    call = [*words("train-score", trained), "--augment", "0.5"]
    for threads in (1, 2, 3):
        assert cm(*call, "--threads", threads, "--run-dir", tmp_path / str(threads)).code == 0
    files = [listing(tmp_path / str(threads)) for threads in (1, 2, 3)]
    for name in ("states/00000312.safetensors", "metrics.jsonl"):
        assert len({each[name] for each in files}) == 1


def test_lines_have_nothing_of_the_clock(trained):
    run = trained["tuned"]
    lines, times = (
        [json.loads(line) for line in (run / name).read_text().splitlines()]
        for name in ("metrics.jsonl", "timing.jsonl")
    )
    assert {key for line in lines for key in line} == {"images", "loss", "gradient", "ema_gap", "lr", "skipped"}
    assert [line["images"] for line in times] == [line["images"] for line in lines]
    assert all(line["images_per_second"] > 0 for line in times)


def test_what_changes_bits_is_refused_or_named(cm, stopped, tmp_path, monkeypatch):
    call, run = ["train-ct", "-d", "digits", *TINY], tmp_path / "run"
    stopped(*call)
    told = cm(*call, "--run-dir", run, "--precision", "bf16", "--micro-batch", "8")
    changes = "micro_batch: not given -> 8; precision: auto -> bf16"
    assert (told.code, told.error[0]) == (2, f"{run} was started with other options: {changes}")
    assert "with --allow-change micro-batch,precision the run goes on" in told.error[1]
    told = cm(*call, "--run-dir", run, "--micro-batch", "8", "--allow-change", "precision")
    assert told.code == 2
    assert cm(*call, "--run-dir", run, "--allow-change", "lr").code == 2

    found = numerics.numerics
    monkeypatch.setattr(
        "cmtool.commands.train.numerics", lambda *args: found(*args) | {"torch": "9.0", "cpu": "ABACUS"}
    )
    told = cm(*call, "--run-dir", run, "--micro-batch", "8", "--allow-change", "micro_batch")
    assert told.code == 0
    capability = torch.backends.cpu.get_cpu_capability()
    changes = f"micro_batch: 32 -> 8; torch: {torch.__version__} -> 9.0; cpu: {capability} -> ABACUS"
    assert f"warning: {run} goes on with other numerics, {changes}: the weights will not be" in told.err
    assert "micro_batch: 8" in (run / "config.yaml").read_text()


def test_a_damaged_state_is_warned_about_and_an_older_one_taken(cm, trained, tmp_path):
    call = [*words("train-ct", trained), "--save-every", "72img", "--keep", "3"]
    assert cm(*call, "--run-dir", tmp_path / "whole").code == 0
    run = tmp_path / "run"
    shutil.copytree(tmp_path / "whole", run)
    states = sorted((run / "states").iterdir())
    assert [path.name for path in states] == [f"{n:08d}.safetensors" for n in (216, 288, 312)]
    for path in states[1:]:
        path.write_bytes(path.read_bytes()[:-7] + b"damaged")
    (run / "status.json").write_text((run / "status.json").read_text().replace('"finished"', '"running"'))
    told = cm(*call, "--run-dir", run)
    assert told.code == 0, told.err
    assert told.err.count("is damaged: its contents do not match its checksum; an older state is used") == 2
    assert f"going on with {run} at 216 images" in told.err
    ours, theirs = listing(run), listing(tmp_path / "whole")
    assert {name for name in ours if name not in theirs} == {f"states/{n:08d}.damaged" for n in (288, 312)}
    same = [name for name in theirs if name not in ("status.json", "timing.jsonl", ".lock")]
    assert [name for name in same if ours[name] != theirs[name]] == []

    for path in (run / "states").iterdir():
        path.write_bytes(b"no state")
    (run / "status.json").write_text((run / "status.json").read_text().replace('"finished"', '"running"'))
    told = cm(*call, "--run-dir", run)
    assert (told.code, "has no training state that is whole" in told.error[0]) == (65, True)
    shutil.rmtree(run / "states")
    told = cm(*call, "--run-dir", run)
    assert (told.code, told.error[0]) == (65, f"{run} has a model, and no training state to go on from")


@pytest.mark.parametrize("name", ["model.safetensors", "ema/power-0.1.safetensors"])
def test_checkpoints_are_made_anew_from_the_state(cm, at, trained, stopped, tmp_path, name):
    """Of a run that was killed between the two, or whose model somebody has thrown away."""
    call, run = words("train-ct", trained), tmp_path / "run"
    assert stopped(*call, images=72).code == 130
    before, seen = listing(run), []
    (run / name).unlink()
    at(96, lambda walk: seen.append(listing(run)))
    assert cm(*call, "--run-dir", run).code == 0
    assert seen[0][name] == before[name]


def test_a_run_of_an_older_version_goes_on(cm, stopped, trained, tmp_path):
    """It has one state, beside its model, and neither counters of a rollback nor its parents in it."""
    call = ["distill", "-t", trained["teacher"], "-d", "digits", *TINY[len(NETWORK) :]]
    assert cm(*call, "--run-dir", tmp_path / "whole").code == 0
    stopped(*call)
    run = tmp_path / "run"
    tensors, scalars = load_state(run / "states/00000064.safetensors")
    shutil.rmtree(run / "states")
    (run / "timing.jsonl").unlink()
    save_state(run, tensors, {"images": scalars["images"], "skipped": 0})
    told = cm("distill", "--resume", run)
    assert told.code == 0, told.err
    assert "warning" not in told.err
    ours, theirs = (load_file(path / "model.safetensors") for path in (run, tmp_path / "whole"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert not (run / "state.safetensors").exists()


def test_parents_do_not_depend_on_the_model_being_there(cm, stopped, trained, tmp_path):
    call = ["distill", "-t", trained["teacher"], "-d", "digits", *TINY[len(NETWORK) :]]
    stopped(*call)
    (tmp_path / "run/model.safetensors").unlink()
    assert cm(*call, "--run-dir", tmp_path / "run").code == 0
