"""The method that docs/extending.md adds: its own tests, the document, and a run of the installed package."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from installing import install
from test_smooth import *  # noqa: F403 - the package's own tests run here as well

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "examples" / "method_plugin"
TRAIN = ["train-ct", "--data", "gaussians", "--backbone", "mlp", "-n", "512", "-b", "64", "--method", "smooth"]


@pytest.fixture(scope="module")
def cmtool(tmp_path_factory):
    """Run cmtool where the package is installed: its exit code, output and messages."""
    site = install([PACKAGE], tmp_path_factory.mktemp("site"))
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(site), str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }

    def call(*words):
        command = [sys.executable, "-m", "cmtool", *map(str, words)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=site)
        return done.returncode, done.stdout, done.stderr

    return call


def test_the_installed_method_trains_and_is_sampled(cmtool, tmp_path):
    run = tmp_path / "run"
    code, _, messages = cmtool(*TRAIN, "--set", "method.narrow=32", "--run-dir", run)
    assert code == 0, messages
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["images"] == 512 and all(math.isfinite(line["loss"]) for line in lines)
    assert "narrow: 32" in (run / "config.yaml").read_text()
    code, _, messages = cmtool("sample", "--model", run / "model.safetensors", "-n", "10", "-o", tmp_path / "a.npz")
    assert code == 0, messages


def test_its_options_are_checked_and_its_package_is_named(cmtool, tmp_path):
    code, _, messages = cmtool(*TRAIN, "--set", "method.narow=32", "--run-dir", tmp_path / "run")
    assert (code, "unknown option of consistency-training method 'smooth' 'narow'" in messages) == (2, True)
    assert "did you mean 'narrow'?" in messages
    _, listed, _ = cmtool("info", "plugins", "--json")
    (found,) = [plugin for plugin in json.loads(listed)["plugins"] if plugin["name"] == "smooth"]
    assert (found["group"], found["distribution"], found["version"]) == ("train_ct", "cmtool-smooth", "0.1.0")


def test_the_document_shows_the_file_as_it_is():
    text = (ROOT / "docs" / "extending.md").read_text()
    assert f"```python\n{(PACKAGE / 'cmtool_smooth.py').read_text()}```" in text
    assert (PACKAGE / "pyproject.toml").read_text().count('smooth = "cmtool_smooth:smooth"') == text.count(
        "smooth:smooth"
    )
