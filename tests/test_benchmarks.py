"""The benchmarks run, and compare what can be compared."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "loader.py"
SMALL = ("--images", "60", "--batch", "20", "--pairs", "1", "--epochs", "1", "--workers", "0")


def benchmark(*options: str, program: str = "") -> subprocess.CompletedProcess:
    start = ["-c", program] if program else [str(SCRIPT)]
    return subprocess.run([sys.executable, *start, *SMALL, *options], capture_output=True, text=True)


def test_the_loader_is_compared_in_every_container():
    done = benchmark()
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    cases = [(row["container"], row["cached"], row["workers"]) for row in found["rows"]]
    assert cases == [(name, cached, 0) for name in ("zip", "tar", "npz", "folder") for cached in (True, False)]
    for row in found["rows"]:
        assert all(row[key] > 0 for key in row if key.endswith(("ratio", "second")))
    assert (found["images"], found["original"]) == (60, False)


def test_sides_that_read_other_pictures_are_not_compared():
    """One of the two is made to leave the last picture out."""
    program = f"""
import runpy, sys
sys.argv[0] = {str(SCRIPT)!r}
sys.path.insert(0, {str(SCRIPT.parent)!r})
import reference_loader
full = reference_loader.EndlessOrder.__iter__
reference_loader.EndlessOrder.__iter__ = lambda self: (max(1, index) for index in full(self))
runpy.run_path(sys.argv[0], run_name="__main__")
"""
    done = benchmark("--containers", "zip", program=program)
    assert done.returncode != 0
    assert "must read the same pictures" in done.stderr


def test_a_clone_of_the_original_is_measured_where_there_is_one(tmp_path, monkeypatch):
    """A stand-in with the original's names."""
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "dataset.py").write_text(
        "import numpy as np, sys\n"
        "from reference_loader import ZipPictures\n"
        "class ImageFolderDataset(ZipPictures):\n"
        "    def __init__(self, path, use_labels, xflip, cache):\n"
        "        assert use_labels and not xflip\n"
        "        print('measured', file=sys.stderr)\n"
        "        super().__init__(path, cache)\n"
    )
    monkeypatch.setenv("EDM_REPO", str(tmp_path))
    done = benchmark("--containers", "npz")
    assert done.returncode == 0, done.stderr
    assert "measured" in done.stderr
    assert json.loads(done.stdout)["original"] is True
