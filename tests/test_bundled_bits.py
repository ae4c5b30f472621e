"""The bundled models draw the images of 100 seeds that they drew when the hashes were recorded, bit for bit.

A sum of floats may round otherwise in another version of torch or on another kind of processor, so the hashes belong to
those that they were recorded with, and the test says so where it cannot compare.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from cmtool.cli import run

RECORDED = json.loads(Path(__file__).with_suffix(".json").read_text("utf-8"))


def digest(path):
    """SHA-256 over the arrays of an .npz, in the order of their names."""
    found = hashlib.sha256()
    with np.load(path) as arrays:
        for key in sorted(arrays.files):
            found.update(np.ascontiguousarray(arrays[key]).tobytes())
    return found.hexdigest()


@pytest.mark.parametrize("name", RECORDED["images"])
def test_the_images_of_100_seeds_are_those_recorded(name, tmp_path, capsys):
    here = {"torch": torch.__version__.partition("+")[0], "processor": torch.backends.cpu.get_cpu_capability()}
    if here != RECORDED["with"]:
        pytest.skip(f"recorded with {RECORDED['with']}, and this is {here}")
    out = tmp_path / "images.npz"
    assert run(["sample", "-n", "100", "-q", "-o", str(out), *RECORDED["images"][name]["words"]]) == 0
    assert digest(out) == RECORDED["images"][name]["sha256"]
