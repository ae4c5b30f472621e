"""Packages as pip installs them, in a folder of their own, without a network."""

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

__all__ = ["install"]

PIP = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]


def install(packages: Iterable[Path], target: Path) -> Path:
    """The folder, to be put on PYTHONPATH; skips the test where packages cannot be built."""
    pytest.importorskip("hatchling", reason="building the packages without a network needs hatchling")
    command = [*PIP, "--disable-pip-version-check", "--target", target, *packages]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return target
