"""Ranks that are killed, signalled or in error: all end, none hangs, and the run goes on to the undisturbed weights."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cmtool.files.runs import METRICS, read_status

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="the ranks are found in /proc"),
]
DATA = ["-d", "digits[0:256]", "-b", "16", "--set", "backbone.model_channels=8", "--threads", "1", "--flip"]
TRAIN = ["train-score", *DATA, "-n", "1600", "--snapshots", "2", "--save-every", "160img", "--ema", "500,power:0.1"]
PATIENCE = 300


def torchrun(folder, *words, ranks=2, options=(), program=("-m", "cmtool"), **env):
    """torchrun at work on a command, in ``folder``."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks), *options]
    return start(folder, [*launch, *program, *words], env)


def start(folder, command, env):
    env = os.environ | {"OMP_NUM_THREADS": "1", **{name: str(value) for name, value in env.items()}}
    return subprocess.Popen(command, cwd=folder, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def end(process):
    """The exit code, and what was said; nothing hangs."""
    out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out + err


def ranks_of(process):
    """The processes that torchrun has started, in the order of their ranks."""
    found = {}
    for number in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        variables = Path(f"/proc/{number}/environ").read_bytes().split(b"\0")
        found |= {int(text[5:]): int(number) for text in variables if text.startswith(b"RANK=")}
    return [found[rank] for rank in sorted(found)]


def wait_for_images(run, images):
    """Until a run has seen so many."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        try:
            lines = (run / METRICS).read_text().splitlines()
        except FileNotFoundError:
            lines = []
        if lines and lines[-1].endswith("}") and json.loads(lines[-1])["images"] >= images:
            return
        time.sleep(0.02)
    raise AssertionError(f"{run} did not reach {images} images")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The files of a run of one process that nothing has disturbed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    process = start(folder, [sys.executable, "-m", "cmtool", *TRAIN, "--run-dir", "x"], {})
    code, told = end(process)
    assert code == 0, told
    return weights(folder / "x")


def weights(run):
    """The checkpoints of all averages, by name."""
    return {
        str(path.relative_to(run)): path.read_bytes()
        for path in run.rglob("*.safetensors")
        if "states" not in str(path)
    }


@pytest.mark.parametrize(("rank", "images"), [(0, 500), (1, 500), (1, 16)])
def test_a_killed_rank_is_started_again_and_the_weights_are_those_of_an_undisturbed_run(
    tmp_path, undisturbed, rank, images
):
    """Before the first save, and after some."""
    process = torchrun(tmp_path, *TRAIN, "--run-dir", "x", options=("--max-restarts", "2"))
    wait_for_images(tmp_path / "x", images)
    os.kill(ranks_of(process)[rank], signal.SIGKILL)
    code, told = end(process)
    assert code == 0, told
    assert read_status(tmp_path / "x")["state"] == "finished"
    assert weights(tmp_path / "x") == undisturbed


@pytest.mark.parametrize(
    ("which", "to"),
    [("SIGTERM", "torchrun"), ("SIGUSR1", "torchrun"), ("SIGUSR1", "all"), ("SIGINT", "all"), ("SIGINT", "one rank")],
)
def test_a_signal_stops_all_ranks_at_one_step(tmp_path, undisturbed, which, to):
    handled = ("--signals-to-handle", "SIGTERM,SIGINT,SIGUSR1")
    process = torchrun(tmp_path, *TRAIN, "--run-dir", "x", options=handled)
    wait_for_images(tmp_path / "x", 300)
    ranks = ranks_of(process)
    for number in {"torchrun": [process.pid], "one rank": ranks[1:], "all": [process.pid, *ranks]}[to]:
        os.kill(number, getattr(signal, which))
    code, told = end(process)
    assert code == 1, told
    assert told.count("cmtool: error: stopped at ") == 1, told
    assert not any(Path(f"/proc/{number}").exists() for number in ranks)
    status = read_status(tmp_path / "x")
    assert status["state"] == ("interrupted" if which == "SIGINT" else "preempted")
    assert 300 <= status["images"] < 1600
    code, told = end(torchrun(tmp_path, *TRAIN, "--run-dir", "x"))
    assert code == 0, told
    assert weights(tmp_path / "x") == undisturbed


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(("kind", "code"), [("ours", 65), ("bug", 74)])
def test_an_error_of_one_rank_ends_all_with_one_message_and_its_code(tmp_path, rank, kind, code):
    program = (str(Path(__file__).with_name("failing_rank.py")),)
    both = under_srun(tmp_path, program, FAILING_RANK=rank, FAILING=kind)
    ended = [end(process) for process in both]
    assert [found for found, _ in ended] == [code, code], ended
    assert sum(told.count("cmtool: error:") for _, told in ended) == 1, ended
    assert read_status(tmp_path / "x")["state"] == "failed"


def test_a_rank_of_srun_that_is_killed_leaves_none_behind(tmp_path):
    both = under_srun(tmp_path, ("-m", "cmtool"))
    wait_for_images(tmp_path / "x", 100)
    both[1].kill()
    code, told = end(both[0])
    assert code == 1
    assert re.findall("cmtool: error: .*", told) == ["cmtool: error: rank 0 waited for one that ended early"]
    assert end(both[1])[0] == -signal.SIGKILL


def under_srun(folder, program, **env):
    """Two tasks of a step of Slurm."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": taken.getsockname()[1]}
    step = env | {"SLURM_JOB_ID": 1, "SLURM_STEP_ID": 0, "SLURM_NTASKS": 2}
    command = [sys.executable, *program, *TRAIN, "--run-dir", "x"]
    return [start(folder, command, step | {"SLURM_PROCID": rank, "SLURM_LOCALID": rank}) for rank in (0, 1)]
