import json
import math
import os
import subprocess
import sys
import time

import pytest

from cmtool.errors import BadFile, MissingInput, UsageError, WriteFailed
from cmtool.files.rewind import rewind, rewind_lines
from cmtool.files.runs import append, create, latest_checkpoint, locked, read_status, write_status
from cmtool.options.hint_words import word_hint

HOLD = """
import sys, time
from cmtool.files.runs import locked
with locked(sys.argv[1]):
    print("locked", flush=True)
    time.sleep(60)
"""


def test_names_of_runs(tmp_path):
    folders = {create(None, "train-ct", "my data/é", tmp_path / "runs") for _ in range(20)}
    assert len(folders) == 20
    for folder in folders:
        assert folder.is_dir()
        assert folder.parent == tmp_path / "runs" / "train-ct"
        date, clock, rest = folder.name.split("-", 2)
        assert abs(time.mktime(time.strptime(date + clock, "%Y%m%d%H%M%S")) - time.time()) < 10
        assert rest[:10] == "my-data-é-"
        assert len(rest) == 14


def test_a_run_in_a_place_of_the_users_choice(tmp_path):
    assert create(tmp_path / "a" / "b", "distill", "x") == tmp_path / "a" / "b"
    with locked(tmp_path / "a" / "b"):
        pass
    create(tmp_path / "a" / "b", "distill", "x")  # a lock alone is not a run
    (tmp_path / "a" / "b" / "config.yaml").touch()
    with pytest.raises(UsageError, match="is not empty") as caught:
        create(tmp_path / "a" / "b", "distill", "x")
    assert "--run-dir" in word_hint(caught.value.hint)
    with pytest.raises(WriteFailed):
        create(tmp_path / "a" / "b" / "config.yaml", "distill", "x")


def test_two_processes_do_not_share_a_run_and_death_lets_go(tmp_path):
    with subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == b"locked\n"
        with pytest.raises(UsageError) as caught, locked(tmp_path):
            pytest.fail("both hold the lock")
        assert f"is being written by process {holder.pid} on {os.uname().nodename}" in caught.value.message
        holder.kill()
    with locked(tmp_path):
        assert f"process {os.getpid()} " in (tmp_path / ".lock").read_text()
        with pytest.raises(UsageError), locked(tmp_path):
            pytest.fail("the same process holds it twice")
    with locked(tmp_path):
        pass


def test_locking_sweeps_what_a_killed_writer_left(tmp_path):
    (tmp_path / ".tmp-1-abc").touch()
    with locked(tmp_path):
        assert os.listdir(tmp_path) == [".lock"]


def test_a_run_that_is_not_there(tmp_path):
    (tmp_path / "20250101-run").mkdir()
    with pytest.raises(MissingInput) as caught, locked(tmp_path / "20250101-rnu"):
        pass
    assert caught.value.hint == f"did you mean {tmp_path / '20250101-run'}?"
    with pytest.raises(MissingInput):
        read_status(tmp_path / "20250101-run")


def test_status(tmp_path):
    write_status(tmp_path, "running", images=5)
    write_status(tmp_path, "finished", images=7)
    status = read_status(tmp_path)
    assert (status["state"], status["images"]) == ("finished", 7)
    assert os.listdir(tmp_path) == ["status.json"]
    for damaged in ("", "{", "[]", '{"state": "finished"}'):
        (tmp_path / "status.json").write_text(damaged)
        with pytest.raises(BadFile):
            read_status(tmp_path)


def test_metrics_are_lines_of_json(tmp_path):
    for i in range(3):
        append(tmp_path, {"images": 10 * i, "loss": [0.5, math.nan, math.inf][i], "note": "a\nb"})
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["loss"] for line in lines] == [0.5, None, None]
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"images": 5, "lo')
    rewind_lines(tmp_path / "metrics.jsonl", 10)
    assert (tmp_path / "metrics.jsonl").read_text().splitlines() == lines[:2]
    rewind(tmp_path / "nowhere", 10)


def test_the_latest_checkpoint(tmp_path):
    assert latest_checkpoint(tmp_path) is None
    order = ["runs/train-score/b", "runs/distill/c", "mine", "runs/a"]
    for place in order:
        folder = tmp_path / place
        folder.mkdir(parents=True)
        (folder / "model.safetensors").touch()
        write_status(folder, "finished", images=1)
        assert latest_checkpoint(tmp_path) == folder / "model.safetensors"
    write_status(tmp_path / "runs/a", "interrupted", images=1)
    assert latest_checkpoint(tmp_path) == tmp_path / "mine" / "model.safetensors"
    (tmp_path / "mine/status.json").write_text("{")
    assert latest_checkpoint(tmp_path) == tmp_path / "runs/distill/c/model.safetensors"
    (tmp_path / "runs/distill/c/model.safetensors").unlink()
    assert latest_checkpoint(tmp_path) == tmp_path / "runs/train-score/b/model.safetensors"


def test_the_working_directory_is_where_it_looks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = create(None, "train-ct", "shapes")
    (folder / "model.safetensors").touch()
    write_status(folder, "finished")
    assert str(latest_checkpoint()) == f"{folder}/model.safetensors"
    assert str(folder).startswith("runs/train-ct/")


def test_headers_and_runs_need_no_torch():
    code = "import sys, cmtool.files.header, cmtool.files.runs; print({'torch', 'numpy', 'PIL'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"set()\n"


DAMAGED = [
    *("{", "[]", "3", "null", "[" * 100_000, '{"updated": "' + "x" * (1 << 20) + '"}'),
    *('{"state": "finished"}', '{"updated": 3, "state": "x"}', '{"updated": "x", "state": []}'),
    *('{"updated": "x", "state": "x", "images": 1e999}', '{"updated": "x", "state": "x", "skipped": -1}'),
]


@pytest.mark.parametrize("text", DAMAGED, ids=range(len(DAMAGED)))
def test_a_status_that_is_none(tmp_path, text):
    (tmp_path / "status.json").write_text(text)
    with pytest.raises(BadFile, match=r"status\.json is damaged"):
        read_status(tmp_path)


@pytest.mark.parametrize("line", ["{", "[]", "3", "null", "{}", '{"images": "x"}', "\udcff", "[" * 100_000])
def test_a_line_of_metrics_that_is_none_is_named(tmp_path, line):
    append(tmp_path, {"images": 1})
    with (tmp_path / "metrics.jsonl").open("a", errors="surrogateescape") as file:
        file.write(line + "\n")
    with pytest.raises(BadFile, match=r"metrics\.jsonl, line 2, is damaged"):
        rewind(tmp_path, 10)
