"""``status.json``: what a scheduler reads of a run."""

import json
import signal

import pytest
from tiny import TINY

from cmtool.files.runs import read_status

WORDS = ["train-ct", "-d", "digits", *TINY]


@pytest.mark.parametrize(
    ("by", "state", "code"), [(signal.SIGINT, "interrupted", 130), (signal.SIGTERM, "preempted", 75)]
)
def test_how_a_run_stands(stopped, tmp_path, by, state, code):
    assert stopped(*WORDS, by=by).code == code
    status = read_status(tmp_path / "run")
    assert (status["state"], status["exit_code"]) == (state, code)
    assert (status["images"], status["total"], status["skipped"], status["draws"]) == (64, 128, 0, 0)
    assert status["images_per_second"] > 0 < status["seconds"]
    assert {key: status["saved"][key] for key in ("images", "file")} == {
        "images": 64,
        "file": "states/00000064.safetensors",
    }
    assert status["saved"]["time"][:19] <= status["updated"][:19]
    assert status["command"] == f"cmtool train-ct --run-dir {tmp_path / 'run'}"


def test_a_run_that_goes_on_knows_its_last_save(stopped, at, cm, tmp_path):
    stopped(*WORDS)
    seen = []
    at(96, lambda walk: seen.append(read_status(tmp_path / "run")))
    assert cm("train-ct", "--run-dir", tmp_path / "run").code == 0
    assert (seen[0]["state"], seen[0]["saved"]["images"]) == ("running", 64)


def test_while_it_runs_and_when_it_has_finished(cm, at, tmp_path):
    seen = []
    at(64, lambda walk: seen.append(json.loads((tmp_path / "run/status.json").read_text())))
    assert cm(*WORDS, "--save-every", "32img", "--run-dir", tmp_path / "run").code == 0
    assert (seen[0]["state"], seen[0].get("exit_code"), seen[0]["images"]) == ("running", None, 64)
    status = read_status(tmp_path / "run")
    assert (status["state"], status["exit_code"], status["saved"]["images"]) == ("finished", 0, 128)
