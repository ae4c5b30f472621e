"""``cmtool status`` prints what a run says of itself, to people, programs and batch files."""

import json
import subprocess
import sys

import pytest

from cmtool.files.runs import METRICS, append, write_status


@pytest.fixture
def stands(tmp_path):
    """A run of which nothing is there but what it says of itself."""
    folder = tmp_path / "mine"
    folder.mkdir()

    def write(state="running", **facts):
        write_status(folder, state, **{"images": 1200, **facts})
        return folder

    return write


def test_people_read_lines(cm, stands):
    saved = {"images": 1000, "file": "states/00001000.safetensors", "time": "2026-01-02T03:04:05+00:00"}
    folder = stands(total=36_000, skipped=2, saved=saved, images_per_second=81.256789, reason=None)
    append(folder, {"images": 1100, "loss": 2.0})
    append(folder, {"images": 1200, "loss": 1.25})
    with (folder / METRICS).open("a") as file:
        file.write('{"images": 13')  # of a writer at work
    lines = dict(line.split(": ", 1) for line in cm("status", folder).out.splitlines())
    assert lines.pop("updated").endswith(" s ago")
    assert lines == {
        "state": "running",
        "images": "1,200 of 36,000 (3%)",
        "skipped": "2",
        "saved": "images 1,000, file states/00001000.safetensors, time 2026-01-02T03:04:05+00:00",
        "images per second": "81.257",
        "last metrics": "images 1,200, loss 1.25",
    }


def test_programs_read_the_whole_document(cm, stands):
    folder = stands("preempted", exit_code=75, whatever={"a": [1]})
    append(folder, {"images": 1200, "loss": 1.25})
    told = json.loads(cm("status", folder, "--json").out)
    assert told.pop("updated")
    assert told == {
        "schema": "cmtool.status/1",
        "run": str(folder),
        "state": "preempted",
        "images": 1200,
        "exit_code": 75,
        "whatever": {"a": [1]},
        "metrics": {"images": 1200, "loss": 1.25},
    }


@pytest.mark.parametrize("state", ["running", "finished", "preempted", "interrupted", "failed"])
def test_batch_files_read_one_word(cm, stands, state):
    told = cm("status", stands(state), "--state")
    assert (told.out, told.err) == (f"{state}\n", "")


def test_a_finished_run(cm, trained):
    told = json.loads(cm("status", trained["teacher"], "--json").out)
    assert (told["state"], told["images"]) == ("finished", told["metrics"]["images"])


@pytest.mark.parametrize(
    ("damage", "code", "message"),
    [
        (lambda folder: folder.rename(folder.with_name("other")), 66, "there is no run "),
        (lambda folder: (folder / "status.json").unlink(), 66, " is not a run: it has no status.json"),
        (lambda folder: (folder / "status.json").write_text("{"), 65, "status.json is damaged"),
        (lambda folder: (folder / "status.json").write_text('{"state": 1}'), 65, "status.json is damaged"),
    ],
)
def test_what_is_no_run(cm, stands, damage, code, message):
    folder = stands()
    damage(folder)
    told = cm("status", folder)
    assert (told.code, told.out) == (code, "")
    assert message in told.error[0]
    assert cm("status").code == 2


def test_text_of_the_file_commands_no_terminal(cm, stands):
    folder = stands("\x1b[2J", reason="\x1b]0;x\x07")
    append(folder, {"note": "\x9b1m"})
    told = cm("status", folder)
    assert told.out.replace("\n", "").isprintable()


def test_damaged_metrics_are_left_out(cm, stands):
    folder = stands()
    (folder / METRICS).write_text("[1]\nhalf\n")
    assert "last metrics" not in cm("status", folder).out
    (folder / METRICS).write_text("[1]\n")
    assert "last metrics" not in cm("status", folder).out


def test_it_starts_without_torch(stands):
    program = "import sys; from cmtool.cli import run; code = run(sys.argv[1:]); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", program, "status", stands()], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("state: running\nimages: 1,200\n")
