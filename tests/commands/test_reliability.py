"""Nothing is lost by a kill or a stop; the figures of the whole are those of ``reliability.py``."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("reliability.py")


def told(folder, *options):
    words = [sys.executable, "-W", "error", PROGRAM, folder, *map(str, options)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CHILDREN": str(folder / "children.txt")}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=3000)
    children = (folder / "children.txt").read_text() if (folder / "children.txt").exists() else ""
    assert done.returncode == 0, done.stderr[-2000:] + children[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    del found["seconds"]
    return found


def test_some_kills_lose_nothing(tmp_path):
    found = told(tmp_path, "--commands", "train-ct", "--every", 16, "--kills", 8, "--stops", 1)["train-ct"]
    assert found["points"] >= 8
    assert found["saved"] > 0  # some of them had a state already
    assert (found["kills"], found["stops"]) == (8, 1)


@pytest.mark.slow
def test_kills_lose_nothing(tmp_path):
    found = Counter()
    for each in told(tmp_path, "--every", 1, "--kills", 200, "--stops", 10).values():
        found.update(each)
    assert found["points"] >= 200
    assert found["while_saving"] >= 20
    assert (found["kills"], found["stops"]) == (200, 30)
