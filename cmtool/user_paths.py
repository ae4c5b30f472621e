"""The home folder, the folders of the user in it, and the files below a folder as every command sees them."""

import os
from pathlib import Path
from typing import NamedTuple

from platformdirs import user_cache_path, user_config_path

from cmtool.errors import MissingInput

__all__ = ["Tree", "cache_folder", "config_folder", "expand_home", "files_below", "is_visible"]


def expand_home(path: str | os.PathLike[str]) -> str:
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


# Folders in which systems keep thumbnails, what was deleted, and older versions.
SYSTEM = {
    *("@eadir", "@tmp", "@__thumb", "@recycle", "@recently-snapshot", "#recycle", "#snapshot"),  # of network storage
    *("$recycle.bin", "recycler", "system volume information", "__macosx", "lost+found", "__pycache__"),
}


class Tree(NamedTuple):
    """Paths of files with ``/``, in their order, and the names of the first folders."""

    files: list[str]
    folders: list[str]


def is_visible(name: str) -> bool:
    """Whether neither a path nor a folder on it is hidden (``.name``) or one that a system keeps for itself."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    return not any(part.startswith(".") or part.casefold() in SYSTEM for part in parts)


def files_below(root: Path) -> Tree:
    """Every visible file below ``root``; links to folders are followed, but never to one that they lie in.

    MissingInput for a folder that cannot be read, since what lies in it would be missed.
    """
    files, first = [], []
    above = {str(root): ("", frozenset([os.path.realpath(root)]))}
    for place, folders, names in os.walk(root, onerror=_refuse, followlinks=True):
        start, outer = above.pop(place)
        inside = {name: os.path.realpath(os.path.join(place, name)) for name in filter(is_visible, folders)}
        folders[:] = sorted(name for name, real in inside.items() if real not in outer)
        for name in folders:
            above[os.path.join(place, name)] = (f"{start}{name}/", outer | {inside[name]})
        first = first if start else list(folders)
        files += [start + name for name in names if is_visible(name)]
    return Tree(sorted(files), first)


def _refuse(error: OSError) -> None:
    raise MissingInput(f"cannot read the folder {error.filename}: {error.strerror}") from error
