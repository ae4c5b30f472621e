"""Training, going on, sampling and locks on a system without what POSIX has."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tiny import random_model

from cmtool.files import atomic, runs
from cmtool.files.runs import read_status

PROGRAM = Path(__file__).with_name("without_posix.py")
TRAIN = ["train-score", "-d", "digits[0:64]", "-b", "16", "--set", "backbone.model_channels=8", "--threads", "1"]
TARGETS = ["out/", "x.tar", "x.zip", "x.npz", "x.npy"]


def codes(folder, *commands):
    """The exit codes of some commands, one after the other in one process, and what they have said."""
    words = json.dumps([[str(word) for word in command] for command in commands])
    done = subprocess.run([sys.executable, PROGRAM, words], cwd=folder, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


def test_a_run_ends_and_goes_on(tmp_path):
    run = [*TRAIN, "--snapshots", "2"]
    first, more = [*run, "-n", "64", "--run-dir", "x"], [*run, "-n", "96", "--resume", "x"]
    found, told = codes(tmp_path, first, more, ["status", "x"])
    assert found == [0, 0, 0], told
    assert read_status(tmp_path / "x")["images"] == 96
    assert b"\r" not in (tmp_path / "x/metrics.jsonl").read_bytes()


def test_samples_are_those_of_other_systems(tmp_path, well):
    model = random_model(tmp_path / "model.safetensors", (1, 8, 8), 4)
    draw = ["sample", "-m", model, "-n", "12", "-o"]
    commands = [[*draw, target, *part] for target in TARGETS for part in (["--shard", "1/2"], ["--shard", "2/2"], [])]
    found, told = codes(tmp_path, *commands)
    assert found == [0] * len(commands), told
    assert not [path.name for path in tmp_path.rglob("*") if path.suffix == ".lock" or ".part" in path.name]
    (tmp_path / "here").mkdir()
    for target in TARGETS:
        well("sample", "-m", model, "-n", 12, "-o", f"{tmp_path}/here/{target}")
        assert files_below(tmp_path, target) == files_below(tmp_path / "here", target)


def files_below(folder, target):
    place = folder / target
    found = sorted(place.iterdir()) if place.is_dir() else [place, folder / f"{target}.manifest.jsonl"]
    return {path.name: path.read_bytes() for path in found}


def test_a_run_and_a_file_that_others_write_are_left_alone(tmp_path):
    model = random_model(tmp_path / "model.safetensors", (1, 8, 8))
    with runs.locked(atomic.make_folder(tmp_path / "x")), (tmp_path / ".x.npz.part.lock").open("w") as file:
        assert atomic.take_lock(file)
        train = [*TRAIN, "-n", "64", "--run-dir", "x"]
        found, told = codes(tmp_path, train, ["sample", "-m", model, "-n", "4", "-o", "x.npz"])
    assert found == [2, 2]
    assert f"x is being written by process {os.getpid()} on " in told
    assert "another process is writing x.npz.part" in told


def test_the_holder_of_a_lock_is_named_though_its_first_byte_cannot_be_read(tmp_path):
    """As on Windows, where a lock keeps others from reading what it covers."""
    with runs.locked(tmp_path):
        text = (tmp_path / ".lock").read_text("utf-8")

    class Locked:
        at = 0

        def seek(self, place):
            self.at = place

        def read(self):
            if self.at == 0:
                raise PermissionError(13, "Permission denied")
            return text[self.at :]

    assert runs._holder(Locked()) == text.strip()
    assert text.strip().startswith("process ")


def test_the_stand_in_is_strict(tmp_path):
    program = (
        "import os, without_posix as w; w.take_away()\n"
        "open('a', 'wb').close(); open('b', 'wb').close(); held = open('a', 'rb')\n"
        "for work in (lambda: os.replace('a', 'c'), lambda: os.replace('b', 'a'), lambda: os.remove('a'),\n"
        "             lambda: os.open('.', os.O_RDONLY)):\n"
        "    try: work()\n"
        "    except PermissionError: print('refused')\n"
        "try: import fcntl\n"
        "except ImportError: print('refused')\n"
        "held.close(); os.replace('b', 'a'); os.remove('a'); print(os.listdir('.'))\n"
    )
    env = {"PYTHONPATH": str(PROGRAM.parent), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.stdout.split("\n") == [*["refused"] * 5, "[]", ""], done.stderr
