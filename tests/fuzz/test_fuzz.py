"""Each parser with a few seeded changes of a sound file; the long run is ``python tests/fuzz``, behind ``slow``."""

import subprocess
import sys
from pathlib import Path

import pytest
from farm import CODES, made
from samples import Form, build

from cmtool.cli import run

CHANGES, LINES = 1, 40


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    root = tmp_path_factory.mktemp("fuzz") / "sound"
    return root, build(root)


def attempt(form: Form | None, seed: int, root: Path, at: Path, capsys) -> int:
    """Run a case in this process; its code, after everything that must be so."""
    at.mkdir()
    argv = made(form, seed, root, at)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(at)
        patch.setenv("CMTOOL_DEVICE", "cpu")
        code = run(argv)
    told = capsys.readouterr()
    name = f"{form.name if form else 'words'}:{seed} {argv}: {told.err[-500:]}"
    assert code in CODES, name
    assert told.err.count("cmtool: error:") == (1 if code else 0), name
    assert "\x1b" not in told.out + told.err.replace("\x1b[K", ""), name
    return code


def test_changed_files(sound, tmp_path, capsys):
    root, forms = sound
    codes = [
        attempt(form, 100 * i + seed, root, tmp_path / f"{i}-{seed}", capsys)
        for i, form in enumerate(forms)
        for seed in range(CHANGES)
    ]
    assert len(codes) == CHANGES * len(forms) > 30
    assert codes.count(65) > 8


def test_random_command_lines(sound, tmp_path, capsys):
    codes = [attempt(None, seed, sound[0], tmp_path / str(seed), capsys) for seed in range(LINES)]
    assert codes.count(2) > LINES // 2


@pytest.mark.slow
def test_many_cases_in_processes_with_limits():
    command = [sys.executable, str(Path(__file__).parent), "--cases", "1000", "--words", "300", "--seed", "7"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
