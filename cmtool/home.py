"""The home folder, and the folders of the user in it; a container may run us without either."""

import os
from pathlib import Path

from platformdirs import user_cache_path, user_config_path

__all__ = ["cache_folder", "config_folder", "expanded"]


def expanded(path: str | os.PathLike[str]) -> str:
    """The path with ``~`` and ``~user`` written out, or as it is where there is no such home."""
    return os.path.expanduser(path)


def config_folder() -> Path | None:
    """Where the user's own options are; None for a user without a home."""
    try:
        return _whole(user_config_path("cmtool"))
    except (RuntimeError, KeyError, OSError):
        return None


def cache_folder() -> Path | None:
    """Where what can be fetched again is kept; None for a user without a home."""
    try:
        return _whole(user_cache_path("cmtool", appauthor=False))
    except (RuntimeError, KeyError, OSError):
        return None


def _whole(path: Path) -> Path | None:
    """None for what begins with a ``~`` that nobody could write out."""
    return path if path.is_absolute() else None
