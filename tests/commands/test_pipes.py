"""Real processes: what a shell sees."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny import TINY

from cmtool.files.runs import read_status

ENVIRONMENT = {"OMP_NUM_THREADS": "1", "CMTOOL_THREADS": "1", "PATH": f"{Path(sys.executable).parent}{os.pathsep}"}
needs_bash = pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash")


@pytest.fixture
def bash(tmp_path):
    """Run a line of bash in a folder of its own."""

    def call(line, **environment):
        path = ENVIRONMENT["PATH"] + os.environ["PATH"]
        env = {**os.environ, **ENVIRONMENT, "PATH": path, **environment}
        done = subprocess.run(["bash", "-c", line], cwd=tmp_path, env=env, capture_output=True, timeout=600)
        return done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode()

    return call


@needs_bash
def test_sample_into_fid(bash, trained):
    line = "set -o pipefail; cmtool sample -n 256 -o - | cmtool fid - --ref digits --features small"
    code, out, err = bash(line, CMTOOL_MODEL=str(trained["student"]))
    assert code == 0, err
    assert re.fullmatch(r"FD-small  \d+\.?\d*\n", out)


@needs_bash
def test_a_closed_pipe_ends_quietly(bash, rgb):
    code, out, err = bash("cmtool sample -m $MODEL -n 3000 -o - | head -c 10; echo ${PIPESTATUS[0]}", MODEL=str(rgb))
    assert code == 0
    assert out.endswith("141\n")
    assert "Traceback" not in err
    assert "error" not in err.lower()


def test_ctrl_c_and_a_scheduler_in_a_process_of_its_own(tmp_path):
    words = [sys.executable, "-m", "cmtool", "train-ct", "-d", "digits", *TINY, "--images", "1e7", "--run-dir"]
    env = os.environ | {"OMP_NUM_THREADS": "1", "CMTOOL_THREADS": "1"}
    ends = {signal.SIGINT: (130, "interrupted"), signal.SIGTERM: (75, "preempted")}
    started = {
        which: subprocess.Popen([*words, which.name], cwd=tmp_path, env=env, stderr=subprocess.PIPE, text=True)
        for which in ends  # side by side, because most of the time goes into importing torch
    }
    try:
        for which, process in started.items():
            wait_for((tmp_path / which.name / "status.json").exists)
            process.send_signal(which)
            _, err = process.communicate(timeout=300)
            assert (process.returncode, read_status(tmp_path / which.name)["state"]) == ends[which]
            assert "Traceback" not in err
            assert err.endswith(f"  hint: go on with: cmtool train-ct --run-dir {which.name}\n")
    finally:
        for process in started.values():
            process.kill()
            process.communicate()


def wait_for(condition, seconds=300):
    """Until it holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)
