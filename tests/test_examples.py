"""Every example runs."""

import sys

import pytest
from documents import ROOT, run

EXAMPLES = sorted(path for path in (ROOT / "examples").iterdir() if path.suffix in (".py", ".sh"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_it_runs(example, tmp_path):
    run([sys.executable if example.suffix == ".py" else "bash", str(example)], tmp_path)
