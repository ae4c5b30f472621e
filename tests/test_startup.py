"""The first second and the last: signals, closed streams, homes and folders that are gone."""

import os
import signal
import subprocess
import sys

import pytest

HOOKS = {  # where the process sends itself a signal
    "import of typer": ("import", "typer"),
    "import of the options": ("import", "cmtool.options.load"),
    "import of torch": ("import", "torch"),
    "import of the command": ("import", "cmtool.pipelines.inputs"),
    "while the arguments are parsed": ("call", "make_context"),
}
IMPORT = """
import builtins, os, sys
real = builtins.__import__
def hooked(name, *inputs, **options):
    if name == {name!r} and "cmtool" in sys.modules:
        builtins.__import__ = real
        os.kill(os.getpid(), {which})
    return real(name, *inputs, **options)
builtins.__import__ = hooked
"""
CALL = """
import os, sys
def trace(frame, event, given):
    if frame.f_code.co_name == {name!r} and "typer" in frame.f_code.co_filename:
        sys.setprofile(None)
        os.kill(os.getpid(), {which})
sys.setprofile(trace)
"""


def started(tmp_path, *words, hook=None, which=signal.SIGINT, **options):
    """A process of its own that samples, with a hook that sends it a signal."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if hook:
        kind, name = hook
        (tmp_path / "site").mkdir()
        text = {"import": IMPORT, "call": CALL}[kind].format(name=name, which=int(which))
        (tmp_path / "site" / "sitecustomize.py").write_text(text)
        environment["PYTHONPATH"] = str(tmp_path / "site")
    command = [sys.executable, "-m", "cmtool", *words]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment, timeout=60, **options
    )


@pytest.mark.parametrize("hook", HOOKS)
def test_ctrl_c_at_the_start_is_one_line(tmp_path, hook):
    done = started(tmp_path, "sample", "-n", "1", "-o", "o", hook=HOOKS[hook])
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "cmtool: error: interrupted\n")
    assert os.listdir(tmp_path) == ["site"]


def test_ctrl_c_at_the_start_is_json_too(tmp_path):
    done = started(tmp_path, "sample", "--json", hook=HOOKS["import of typer"])
    assert done.stderr.splitlines()[1] == '{"error": {"code": 130, "message": "interrupted", "hint": null}}'


def test_a_shell_that_has_ctrl_c_ignored_is_heeded(tmp_path):
    command = f"trap '' INT; exec '{sys.executable}' -m cmtool --version"
    (tmp_path / "sitecustomize.py").write_text(IMPORT.format(name="typer", which=2))
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("which", [signal.SIGTERM, signal.SIGHUP])
def test_a_scheduler_at_the_start_leaves_nothing_half_made(tmp_path, which):
    done = started(tmp_path, "sample", "-n", "1", "-o", "o", hook=HOOKS["import of the command"], which=which)
    assert done.returncode in (75, -which)
    assert "Traceback" not in done.stderr
    assert os.listdir(tmp_path) == ["site"]


def test_no_file_takes_the_number_of_a_stream_that_is_closed(tmp_path):
    code = "from cmtool.startup import start_process as s; s(); import os; print(os.open('/dev/null', 0), flush=True)"
    call = f"'{sys.executable}' -c \"{code}\" 0<&- 2>&-"
    done = subprocess.run(call, shell=True, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert int(done.stdout) > 2


def test_a_folder_that_is_gone_and_a_home_of_nobody(tmp_path):
    call = f"mkdir gone && cd gone && rmdir ../gone && '{sys.executable}' -m cmtool sample -n 1"
    done = subprocess.run(call, shell=True, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stderr.splitlines()[0]) == (
        66,
        "cmtool: error: the folder this was called from is gone",
    )
    done = started(tmp_path, "info", "~nobody-of-this-name/x")
    assert (done.returncode, done.stderr.splitlines()[0]) == (
        66,
        "cmtool: error: there is no file ~nobody-of-this-name/x",
    )
