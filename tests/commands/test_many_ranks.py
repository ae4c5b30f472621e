"""Training commands on two ranks: one run directory, one voice, one end, and the bits of one process."""

import json
import os
import signal
import time

import numpy as np
import pytest
from PIL import Image
from test_distributed import port, started
from tiny import NETWORK, listing

WORDS = ["train-ct", "-d", "digits", *NETWORK, "--set", "backbone.dropout=0.1", "--batch", "32", "--micro-batch", "8"]
WORDS += ["--warmup", "0", "--lr", "3e-3", "--snapshots", "1", "--threads", "1"]


def both(words):
    at = port()
    return [started(words, rank, at=at) for rank in (0, 1)]


def ends(processes, seconds=240):
    """Exit codes and what was said on standard error."""
    told = [process.communicate(timeout=seconds) for process in processes]
    return [process.returncode for process in processes], [err for _, err in told]


def wait_for(there, processes, seconds=240):
    until = time.monotonic() + seconds
    while not there() and time.monotonic() < until:
        assert all(process.poll() is None for process in processes), ends(processes)
        time.sleep(0.05)


def errors(texts):
    return [line for text in texts for line in text.splitlines() if line.startswith("cmtool: error")]


def test_two_ranks_stop_at_one_step_and_one_process_goes_on(cm, tmp_path):
    """The signal reaches one of them; all files of the run end as if one process had made them without a stop."""
    words = [*WORDS, "--images", "1600", "--save-every", "160img"]
    run, whole = tmp_path / "run", tmp_path / "whole"
    ranks = both([*words, "--run-dir", run])
    wait_for(lambda: any(run.glob("states/*.safetensors")), ranks)
    ranks[1].send_signal(signal.SIGTERM)
    codes, said = ends(ranks)
    assert codes == [75, 75], said
    (error,) = errors(said)
    status = json.loads((run / "status.json").read_text())
    assert status["state"] == "preempted"
    assert f"stopped at {status['images']:,} of 1,600 images" in error
    assert 160 <= status["images"] < 1600
    assert cm(*words, "--run-dir", run).code == 0
    assert cm(*words, "--run-dir", whole).code == 0
    ours, theirs = listing(run), listing(whole)
    assert ours.keys() == theirs.keys()
    for name in ours:
        if name.endswith((".safetensors", ".png")) or name == "metrics.jsonl":
            assert ours[name] == theirs[name], name


def test_a_picture_that_one_rank_cannot_read_ends_both_with_one_message(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(64):
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / f"{i:02d}.png")
    whole = (folder / "37.png").read_bytes()
    (folder / "37.png").write_bytes(whole[: len(whole) // 2])
    words = [*WORDS, "--images", "640", "--run-dir", tmp_path / "run"]
    words[2] = str(folder)
    codes, said = ends(both(words))
    assert codes == [65, 65], said
    (error,) = errors(said)
    assert "37.png" in error


@pytest.mark.slow
def test_a_rank_that_is_killed_ends_the_other_which_keeps_what_was_learned(cm, tmp_path):
    words = [*WORDS, "--images", "3200", "--save-every", "320img", "--run-dir", tmp_path / "run"]
    ranks = both(words)
    wait_for(lambda: any((tmp_path / "run").glob("states/*.safetensors")), ranks)
    os.kill(ranks[1].pid, signal.SIGKILL)
    began = time.monotonic()
    codes, said = ends(ranks)
    assert codes == [1, -9], said
    assert time.monotonic() - began < 60
    assert "rank 0 waited for one that ended early" in errors(said)[0]
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "failed"
    assert cm(*words).code == 0


@pytest.mark.slow
def test_what_a_finished_run_says_and_what_another_rank_warns_of(tmp_path):
    words = [*WORDS[:-2], "--threads", "1", "--images", "64", "--run-dir", tmp_path / "run"]
    words[words.index("--micro-batch") + 1] = "32"
    codes, said = ends(both(words))
    assert codes == [0, 0], said
    assert "1 micro-batch for 2 ranks" in said[0]
    assert "--micro-batch" in said[0]
    assert "1 micro-batch for 2 ranks" in (tmp_path / "run" / "log.rank-1.txt").read_text()
    assert said[1] == ""
    codes, said = ends(both(words))
    assert codes == [0, 0], said
