"""The example packages are tested from their sources, installed or not."""

import sys
from pathlib import Path

import pytest

PLUGINS = Path(__file__).parents[2] / "plugins"

sys.path[:0] = [str(folder) for folder in sorted(PLUGINS.glob("cmtool-*"))]
pytest.register_assert_rewrite("test_dit", "test_emoji")
