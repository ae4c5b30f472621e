"""Several processes: exact mode has the bits of one, DDP is close to it, and none of them hangs."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ddp_program import SIZE, STEPS, walk
from torch import Tensor

import cmtool
from cmtool.files.checkpoint import save
from cmtool.training.ranks import ALONE

HERE = Path(__file__).parent
SMALL = {"name": "unet", "model_channels": 8, "channel_mult": [1], "num_blocks": 1, "dropout": 0.2}
CALL = {"data": "digits", "batch": 16, "micro_batch": 2, "images": 16 * 50, "augment": 0.5, "lr": 0.003, "warmup": 0}


def on_processes(size: int, program: str, *words: str, **environment: str) -> list[list[dict]]:
    """The lines of JSON that each rank prints."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    group = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    processes = []
    for rank in range(size):
        own = {} if size == 1 else {**group, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        command = [sys.executable, "-W", "error", str(HERE / program), *words]
        env = {**os.environ, "OMP_NUM_THREADS": "1", **own, **environment}
        processes.append(subprocess.Popen(command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE))
    told = [process.communicate(timeout=1200) for process in processes]
    assert [process.returncode for process in processes] == [0] * size, told
    return [[json.loads(line) for line in out.splitlines()] for out, _ in told]


def test_two_processes_by_the_tree_and_by_ddp():
    """Of a network whose parts are not all used in each micro-batch; and an error on one of them, in any step."""
    expected = walk(ALONE, "exact")
    (first,), (second,) = on_processes(2, "ddp_program.py")
    for told in (first, second):
        assert told["exact"] == expected
        assert len(told["ddp"]) == STEPS
        assert torch.allclose(torch.tensor(told["ddp"]), torch.tensor(expected), rtol=0, atol=1e-6)
    assert first["ddp"] == second["ddp"], "ranks have the same weights"
    for case in ("ddp 1", "ddp 2", "exact 1", "exact 2"):
        assert first[case] == "LostRank: rank 1 of 2 failed"
        assert second[case] == "ValueError: a broken loss"
    assert SIZE % 4 == 0


def method_calls(folder: Path) -> list[dict]:
    """EDM, CD, ECT and sCM for 50 steps, with dropout and augmentation."""
    *_, last = cmtool.train("edm", **{**CALL, "images": 32}, backbone=SMALL)
    teacher = folder / "teacher.safetensors"
    save(teacher, last.ema.model, last.ema.header)
    own = {**CALL, "backbone": SMALL}
    return [
        {"method": "edm", **own},
        {"method": {"name": "cd", "decay": 0.9}, "teacher": str(teacher), **CALL},
        {"method": "ect", **own},
        {"method": "sct", **own},
    ]


@pytest.mark.slow
def test_1_2_3_and_4_ranks_have_the_same_weights_after_50_steps(tmp_path):
    calls = json.dumps(method_calls(tmp_path))
    found = {}
    for name, size, environment in [
        ("1", 1, {}),
        ("1 with two threads", 1, {"THREADS": "2"}),
        ("2", 2, {}),
        ("2 again", 2, {}),
        ("3", 3, {}),
        ("4", 4, {}),
    ]:
        for rank in on_processes(size, "rank_program.py", calls, **environment):
            found.setdefault(name, []).append([(each["weights"], each["average"], each["loss"]) for each in rank])
    (expected,) = found["1"]
    assert len({weights for weights, _, _ in expected}) == 4
    for name, ranks in found.items():
        assert all(rank == expected for rank in ranks), name


def weights(path: Path) -> Tensor:
    return torch.cat([value.flatten() for value in torch.load(path, weights_only=True).values()])


@pytest.mark.slow
def test_ddp_is_close_to_exact_mode(tmp_path):
    call = {"method": "edm", **CALL, "backbone": {**SMALL, "dropout": 0.0}}
    calls = [{**call, "images": 16 * steps, "parallel": kind} for steps in (20, 50) for kind in ("exact", "ddp")]
    first, second = on_processes(2, "rank_program.py", json.dumps(calls), KEEP=str(tmp_path))
    assert [each["weights"] for each in first] == [each["weights"] for each in second]
    found = [weights(tmp_path / f"0-{n}.pt") for n in range(4)]
    for steps, exact, ddp, told in ((20, *found[:2], first[:2]), (50, *found[2:], first[2:])):
        distance = float((exact - ddp).norm() / exact.norm())
        print(f"{steps} steps: {distance:.2g} apart; {told[0]['seconds']} s exact, {told[1]['seconds']} s DDP")
        assert 0 < distance < 1e-3
