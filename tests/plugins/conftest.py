"""The example packages are tested from their sources, installed or not."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = [*sorted((ROOT / "plugins").glob("cmtool-*")), ROOT / "examples" / "method_plugin"]

sys.path[:0] = [str(folder) for folder in FOLDERS]
pytest.register_assert_rewrite("test_dinov2", "test_dit", "test_emoji", "test_smooth")
