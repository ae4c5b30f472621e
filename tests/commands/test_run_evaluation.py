"""Evaluation during training: the numbers of ``fid``, no bit of training changed, the best checkpoint kept."""

import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny import TINY, listing

from cmtool.commands.training.evaluation import EvaluationRun
from cmtool.evaluation.metric import Metric
from cmtool.files.header import read_header
from cmtool.files.runs import read_status
from cmtool.options.ema_spec import parse_ema_specs
from cmtool.options.load import load_options
from cmtool.pipelines.model_evaluator import Evaluation, Watcher
from cmtool.settings import TrainCtOptions

DIGITS = ["-d", "digits", *TINY]
MEASURED = ["--eval-every", "32", "--eval-n", "80", "--ema", "64,power:0.1"]


def lines(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def scores(run):
    return [line for line in lines(run) if any(key.startswith("eval/") for key in line)]


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A run with dropout and augmentation that was measured after each step."""
    from cmtool.cli import run

    folder = tmp_path_factory.mktemp("measured") / "run"
    assert run([*words("train-ct"), *MEASURED, "--threads", "1", "-q", "--run-dir", str(folder)]) == 0
    return folder


def words(command):
    return [command, *DIGITS, "--set", "backbone.dropout=0.1", "--flip"]


@pytest.mark.parametrize("command", ["train-ct", "train-score"])
def test_training_has_the_same_bits_with_and_without_evaluation(well, tmp_path, command):
    few = ["--ema", "64,power:0.1", "--threads", "2"]
    well(*words(command), *few, "--run-dir", tmp_path / "plain")
    measure = [
        "--eval-every",
        "64",
        "--eval-n",
        "24",
        "--eval-steps",
        "2",
        "--set",
        "eval=[{name: kid, subsets: 3}, fid]",
    ]
    well(*words(command), *few, *measure, "--run-dir", tmp_path / "measured")
    for name in ("model", "states/00000128", "ema/power-0.1"):
        plain, other = (load_file(tmp_path / run / f"{name}.safetensors") for run in ("plain", "measured"))
        assert plain.keys() == other.keys()
        assert all(torch.equal(plain[key], other[key]) for key in plain), name
    assert [line for line in lines(tmp_path / "measured") if "loss" in line] == lines(tmp_path / "plain")
    assert [line["images"] for line in scores(tmp_path / "measured")] == [64, 128]


def test_the_numbers_are_those_of_fid(well, measured):
    last = scores(measured)[-1]
    assert set(last) == {"images", "eval/FD-small/half-life-64", "eval/FD-small/power-0.1"}
    files = {"half-life-64": measured / "model.safetensors", "power-0.1": measured / "ema" / "power-0.1.safetensors"}
    for track, path in files.items():
        told = json.loads(well("fid", path, "--features", "small", "-n", 80, "--json"))
        assert last[f"eval/FD-small/{track}"] == pytest.approx(told["value"], rel=1e-9)


def test_the_best_checkpoint_is_the_best_of_all_lines_and_emas(well, measured, tmp_path):
    found = [(value, line["images"], key) for line in scores(measured) for key, value in line.items() if "/" in key]
    value, images, key = min(found)
    header = read_header(measured / "best.safetensors", whole=True)
    assert header.evaluation == {"metric": "FD-small", "value": value, "n": 80}
    assert (header.images, header.average["ema"].replace(":", "-")) == (images, key.rpartition("/")[2])
    status = read_status(measured)
    assert status["best"] == {**header.evaluation, "track": header.average["ema"], "images": images}
    assert status["evaluation"] == scores(measured)[-1]
    well("sample", "--model", measured / "best.safetensors", "-n", 4, "-o", tmp_path / "four.npz")
    assert np.load(tmp_path / "four.npz")["arr_0"].shape == (4, 8, 8, 1)
    told = json.loads(well("fid", measured / "best.safetensors", "--features", "small", "-n", 80, "--json"))
    assert told["value"] == pytest.approx(value, rel=1e-9)
    assert "the best of its run: FD-small" in well("info", measured / "best.safetensors")


def test_a_resumed_run_measures_the_same(cm, stopped, measured, tmp_path):
    assert stopped(*words("train-ct"), *MEASURED).code == 130
    run = tmp_path / "run"
    assert scores(run) == scores(measured)[:2]
    assert cm("train-ct", "--resume", run).code == 0
    assert lines(run) == lines(measured)
    for name in ("best.safetensors", "eval-ref.npz"):
        assert (run / name).read_bytes() == (measured / name).read_bytes()
    assert read_status(run)["evaluation"] == read_status(measured)["evaluation"]


def test_a_signal_ends_an_evaluation_and_the_resumed_run_makes_up_for_it(cm, measured, tmp_path, monkeypatch):
    update, run = Watcher.update, tmp_path / "run"

    def interrupted(self, done, **figures):
        if len(scores(run)) == 1 and not self.stop():
            os.kill(os.getpid(), signal.SIGINT)
        update(self, done, **figures)

    monkeypatch.setattr(Watcher, "update", interrupted)
    assert cm(*words("train-ct"), *MEASURED, "--run-dir", run).code == 130
    monkeypatch.undo()
    assert [line["images"] for line in lines(run)] == [32, 32, 64]
    assert cm("train-ct", "--resume", run, "--threads", 1).code == 0
    assert lines(run) == lines(measured)
    assert (run / "best.safetensors").read_bytes() == (measured / "best.safetensors").read_bytes()


def test_a_run_that_goes_back_has_the_best_of_then(cm, at, stopped, measured, tmp_path, monkeypatch):
    """Killed after the evaluation at 128 images and before its save: the state is that of 64."""
    run, found, begin = tmp_path / "run", [], EvaluationRun.begin
    assert stopped(*words("train-ct"), *MEASURED).code == 130
    then = (run / "best.safetensors").read_bytes()
    monkeypatch.setattr(EvaluationRun, "begin", lambda self: found.append(listing(run)) or begin(self))

    def kill(training):
        raise RuntimeError("killed")

    at(128, kill)
    assert cm("train-ct", "--resume", run).code == 1
    assert (run / "best.safetensors").read_bytes() != then
    assert cm("train-ct", "--resume", run).code == 0
    assert [files["best.safetensors"] for files in found] == [then, then]
    assert not any(name > "best/00000064" for name in found[1] if name.startswith("best/"))
    assert lines(run) == lines(measured)
    assert (run / "best.safetensors").read_bytes() == (measured / "best.safetensors").read_bytes()
    assert [path.name for path in (run / "best").iterdir()] == ["00000064.safetensors"]  # that of the older state


def test_a_model_that_is_not_finite_has_no_score_and_is_never_the_best(cm, at, tmp_path):
    def poison(training):
        if training.job.state.images == 64:
            for parameter in training.job.state.average.model.parameters():
                parameter.fill_(float("nan"))

    at(64, poison)
    told = cm(*words("train-ct"), *MEASURED, "--snapshots", 0, "--run-dir", tmp_path / "run")
    assert told.code == 0, told.err
    assert "warning: no score of the EMA half-life:64 at 96 images: " in told.err
    found = scores(tmp_path / "run")
    assert [sorted(line) for line in found[2:]] == [["eval/FD-small/power-0.1", "images"]] * 2
    assert read_header(tmp_path / "run" / "best.safetensors").average == {"ema": "power:0.1"}


def test_the_best_is_by_the_first_metric_in_its_direction_and_finite():
    a, b, c = parse_ema_specs("1500,power:0.1,0.999")
    found = {"IS": {a: float("nan"), b: 3.0, c: 2.0}, "FD": {a: 0.0, b: 9.0, c: 1.0}}
    assert Evaluation(1, 2, found, higher_is_better=True).best() == ("IS", b, 3.0)
    assert Evaluation(1, 2, found, higher_is_better=False).best() == ("IS", c, 2.0)
    assert Evaluation(1, 2, {"IS": {a: float("inf")}}, higher_is_better=True).best() is None
    assert Evaluation(1, 2, {}, higher_is_better=True).best() is None
    assert not Evaluation(1, 2, found, higher_is_better=False).is_better(2.0, 2.0)


def test_metrics_know_which_way_is_better():
    from cmtool.options import registry

    better = {name for name in registry.names("metrics") if registry.build("metrics", name).higher_is_better}
    assert better == {"is", "prdc"}
    assert not Metric(lambda pair: iter(())).higher_is_better


@pytest.mark.parametrize(
    ("given", "images", "due"),
    [
        ("0", 128, False),
        ("100", 96, False),
        ("100", 128, True),
        ("64", 64, True),
        ("1kimg", 992, False),
        ("1kimg", 1024, True),
        ("1000img", 1024, True),
        ("7", 32, True),
        ("50k", 2048, True),  # at the end, too
    ],
)
def test_when_an_evaluation_is_due(given, images, due):
    options = load_options(TrainCtOptions, {"eval_every": given, "images": "2048", "batch": "32"}, environment={})
    assert options.eval_due(images, 32, 2048) is due


def test_what_cannot_be_measured_is_refused_before_anything_is_written(cm, tmp_path):
    def refused(*more):
        told = cm("train-ct", *DIGITS, "--run-dir", tmp_path / "run", "--eval-every", "32", *more)
        assert not (tmp_path / "run").exists()
        assert told.code == 2
        return told.error

    assert refused("--eval-ema", "3000") == (
        "the run keeps no EMA half-life:3000",
        "it keeps half-life:1500; add it to --ema",
    )
    assert refused("--eval-solver", "heun")[0].endswith("is for score models, and this is a consistency model")
    assert "IS looks at more of the network" in refused("--eval", "is")[0]
    assert "must be a number of images" in refused("--eval-every", "10min")[0]
    assert "points" in refused("--eval-features", "points")[0]


def test_another_reference_is_measured_once_and_kept(cm, stopped, tmp_path, picture, monkeypatch):
    rng = np.random.default_rng(0)
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(70):
        picture(f"pictures/{i}.png", rng.integers(0, 256, (8, 8), dtype=np.uint8))
    monkeypatch.chdir(tmp_path)
    measure = ["--eval-every", "32", "--eval-n", "80", "--eval-ref", "pictures"]
    assert stopped("train-ct", *DIGITS, *measure, name="run").code == 130
    shutil.rmtree(folder)
    monkeypatch.chdir("/")
    assert cm("train-ct", "--resume", tmp_path / "run").code == 0
    assert [line["images"] for line in scores(tmp_path / "run")] == [32, 64, 96, 128]
    kept = np.load(tmp_path / "run" / "eval-ref.npz")
    assert (int(kept["n"]), kept["mu"].shape) == (70, (64,))


def test_few_images_are_warned_of_once(cm, tmp_path):
    told = cm("train-ct", *DIGITS, "--eval-every", "32", "--eval-n", "20", "--run-dir", tmp_path / "run")
    assert told.code == 0
    assert told.err.count("images are too few") == 1
    assert "evaluation: 20 images are too few for 64 features; the distance is unreliable" in told.err


def test_points_are_measured_by_the_features_of_points(cm, tmp_path):
    network = ["--backbone", "mlp", "--set", "backbone.hidden_dim=16"]
    told = cm("train-score", "-d", "gaussians", *network, *TINY[6:], "--eval-every", "64", "--eval-solver", "euler",
              "--eval-steps", "2", "--eval-n", "30", "--run-dir", tmp_path / "run")  # fmt: skip
    assert told.code == 0, told.err
    assert [sorted(line) for line in scores(tmp_path / "run")] == [["eval/FD-points/half-life-1500", "images"]] * 2


@pytest.mark.slow  # two processes, each with its own imports
def test_ranks_measure_together_what_one_process_measures(well, tmp_path):
    run, alone = tmp_path / "run", tmp_path / "alone"
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "cmtool"]
    command = [*words("train-ct"), *MEASURED, "--eval", "fid,kid", "--loggers", "tensorboard", "--threads", "1"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([*launch, *command, "--run-dir", str(run)], env=environment, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr.decode()
    well(*command, "--run-dir", alone)
    assert lines(run) == lines(alone)
    assert read_header(run / "best.safetensors").evaluation == read_header(alone / "best.safetensors").evaluation
    assert len(list((run / "tensorboard").iterdir())) == 1
