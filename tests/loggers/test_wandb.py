"""W&B's offline files hold what was logged, and nothing asks for the network."""

import json
import math
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from cmtool.loggers.wandb import choose_mode, run_id

BLOCK, HEAD = 1 << 15, struct.Struct("<IHB")  # a log of LevelDB: checksum, length, and which part of a record it is
WHOLE, FIRST, LAST = 1, 2, 4
# In a process of its own: wandb starts a helper, which lives as long as that.
PROGRAM = """
import socket, sys
def refuse(self, address, *rest):
    if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
        print("ASKED FOR", address, file=sys.stderr)
        raise OSError("no network in this test")
    return connect(self, address, *rest)
connect, socket.socket.connect = socket.socket.connect, refuse
from pathlib import Path
from cmtool.loggers.wandb import wandb
from cmtool.testing import check_logger
check_logger(wandb, Path(sys.argv[1]))
"""


def records(path):
    """The records of a ``.wandb`` file, by the format of LevelDB's logs."""
    data, at, record = path.read_bytes(), 7, b""
    while at < len(data):
        if BLOCK - at % BLOCK < HEAD.size:
            at += BLOCK - at % BLOCK
            continue
        _, length, part = HEAD.unpack_from(data, at)
        at += HEAD.size
        record = (b"" if part in (WHOLE, FIRST) else record) + data[at : at + length]
        at += length
        if part in (WHOLE, LAST):
            yield record


def history(path):
    """The lines of figures, and the id and the options of the run."""
    pb = pytest.importorskip("wandb.proto.wandb_internal_pb2")
    lines, about = [], {}
    for record in records(path):
        found = pb.Record()
        found.ParseFromString(record)
        kind = found.WhichOneof("record_type")
        if kind == "history":
            items = ((item.key or "|".join(item.nested_key), item.value_json) for item in found.history.item)
            lines.append({key: json.loads(value) for key, value in items})
        if kind == "run":
            about = {"id": found.run.run_id, "project": found.run.project, "job": found.run.job_type}
            about |= {item.key: json.loads(item.value_json) for item in found.run.config.update}
    return lines, about


def test_the_id_of_a_run_is_kept(tmp_path):
    first = run_id(tmp_path / "wandb")
    assert first.isalnum()
    assert run_id(tmp_path / "wandb") == first
    (tmp_path / "wandb" / "cmtool-id.txt").write_text("../../other\n")
    assert run_id(tmp_path / "wandb").isalnum()


@pytest.mark.parametrize(
    ("given", "mode"),
    [(None, "offline"), ("online", "online"), ("disabled", "disabled"), ("dryrun", "offline"), ("", "offline")],
)
def test_only_the_user_goes_online(monkeypatch, given, mode):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    if given is not None:
        monkeypatch.setenv("WANDB_MODE", given)
    assert choose_mode() == mode


@pytest.mark.slow  # it starts W&B's own process, twice
def test_offline_files_hold_what_was_logged(tmp_path):
    pytest.importorskip("wandb")
    folder = tmp_path / "run"
    folder.mkdir()
    kept = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
    called = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, str(folder)],
        env={**kept, "HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "config")},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert called.returncode == 0, called.stderr
    assert called.stdout == ""
    assert "ASKED FOR" not in called.stderr
    files = sorted(folder.glob("wandb/offline-run-*/run-*.wandb"), key=lambda path: path.parent.name)
    assert len(files) == 2
    (first, about), (second, again) = map(history, files)
    assert about["id"] == again["id"] == (folder / "wandb" / "cmtool-id.txt").read_text().strip()
    assert (about["project"], about["job"], about["lr"]) == ("cmtool", "train-ct", 0.001)
    assert [line["images"] for line in first] == [64, 128, 192]
    assert [line["images"] for line in second] == [128, 192]
    for line in (*first, *second):
        assert line["loss"] == pytest.approx(1 / line["images"])
        assert math.isnan(float(line["eval/FD-small/half-life-1500"]))
        assert (line["samples-3|width"], line["samples-3|height"]) == (8, 6)
        assert Path(line["samples-3|path"]).suffix == ".png"
