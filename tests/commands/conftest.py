"""Tiny models, trained once, and a way to call commands as a user does."""

import os
import signal
from dataclasses import dataclass

import pytest
from PIL import Image
from tiny import SHORT, TINY, random_model

from cmtool.cli import run
from cmtool.commands import train


@dataclass(frozen=True)
class Told:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def error(self):
        """The sentence and the hint; nothing but remarks may stand before them, and no traceback."""
        lines = self.err.splitlines()
        assert "Traceback" not in self.err
        at = next(i for i, line in enumerate(lines) if line.startswith("cmtool: error: "))
        assert len(lines) - at <= 2, self.err
        return lines[at].removeprefix("cmtool: error: "), "".join(lines[at + 1 :]).removeprefix("  hint: ")


@pytest.fixture
def cm(capsys, monkeypatch):
    """Call a command in this process, on one thread."""
    monkeypatch.setenv("CMTOOL_THREADS", "1")

    def call(*argv):
        capsys.readouterr()
        code = run([str(word) for word in argv])
        return Told(code, *capsys.readouterr())

    return call


@pytest.fixture
def well(cm):
    """The same, for what must succeed; its standard output."""

    def call(*argv):
        told = cm(*argv)
        assert told.code == 0, told.err
        return told.out

    return call


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """The chain on digits, and a model of coloured shapes: run directories by name."""
    root = tmp_path_factory.mktemp("trained")

    def train(name, *argv):
        assert run([*argv, "--run-dir", str(root / name), "--threads", "1", "--quiet"]) == 0
        return root / name

    runs = {
        "teacher": train("teacher", "train-score", "-d", "digits", *TINY),
        "tuned": train("tuned", "train-ct", "-d", "digits", *TINY),
        "shapes": train("shapes", "train-ct", "--set", "data.size=16", *TINY, "--method", "ct"),
    }
    runs["student"] = train("student", "distill", "-t", str(runs["teacher"]), "-d", "digits", *SHORT)
    return runs


@pytest.fixture(scope="session")
def rgb(tmp_path_factory):
    """A consistency model of 16x16 colour images without classes, untrained."""
    return random_model(tmp_path_factory.mktemp("rgb") / "model.safetensors")


@pytest.fixture
def picture(tmp_path):
    """Write uint8 [H, W] or [H, W, 3] as a PNG; its path."""

    def write(name, pixels):
        Image.fromarray(pixels).save(tmp_path / name)
        return tmp_path / name

    return write


@pytest.fixture
def at(monkeypatch):
    """Do something, once, after the step that reaches a number of images."""

    def arrange(images, action):
        step, done = train.TrainingRun.step, []

        def wrapped(self, report, *rest):
            step(self, report, *rest)
            if report.images == images and not done:
                done.append(images)
                action(self)

        monkeypatch.setattr(train.TrainingRun, "step", wrapped)

    return arrange


@pytest.fixture
def stopped(cm, at, tmp_path):
    """A run that Ctrl-C stopped, as a rule at 64 of 128 images; what it said."""

    def call(*argv, by=signal.SIGINT, name="run", images=64):
        at(images, lambda walk: os.kill(os.getpid(), by))
        return cm(*argv, "--run-dir", tmp_path / name)

    return call
