"""Two ranks of torchrun judge a model together, and tell what one process tells, to the last digit."""

import json
import os
import socket
import subprocess
import sys

import pytest
from tiny import random_model

from cmtool.errors import CmtoolError
from cmtool.pipelines import distributed
from cmtool.pipelines.distributed import split_seeds


def port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def started(words, rank=None, world=2, at=0):
    ranks = {"RANK": str(rank), "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(at)}
    env = {**os.environ, "OMP_NUM_THREADS": "1", **({} if rank is None else ranks)}
    command = [sys.executable, "-m", "cmtool", *map(str, words), "--json", "--quiet"]
    return subprocess.Popen(command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.parametrize("n", [200, 60])
def test_two_ranks_tell_what_one_process_tells(tmp_path, n):
    """200 images are four batches, two for each; of one batch the second rank makes nothing."""
    model = random_model(tmp_path / "model.safetensors")
    words = ["fid", model, "--ref", "shapes[:300]", "--features", "small", "-n", n, "--steps", "1", "--threads", "1"]
    words += ["--metrics", "fid,kid"]
    at = port()
    both = [started(words, rank, at=at) for rank in (0, 1)]
    told = [process.communicate(timeout=300) for process in both]
    alone, errors = started(words).communicate(timeout=300)
    assert [process.returncode for process in both] == [0, 0], told
    assert told[1][0] == ""
    found, expected = json.loads(told[0][0]), json.loads(alone)
    del found["seconds"], expected["seconds"]
    assert found == expected, errors


def test_a_rank_that_is_left_alone_says_so(monkeypatch):
    def gone(found, thing):
        raise RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer")

    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(distributed.dist, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed.dist, "all_gather_object", gone)
    with pytest.raises(CmtoolError, match="rank 0 waited for one that ended early"):
        distributed.sum_over_ranks(1.0)


def test_the_batches_are_dealt_out_in_turn():
    shares = [split_seeds(range(10), 3, rank, 2) for rank in (0, 1)]
    assert shares == [[0, 1, 2, 6, 7, 8], [3, 4, 5, 9]]
    assert split_seeds(range(10), 3, 0, 1) == range(10)
