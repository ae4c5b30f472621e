"""The files below a folder, as training, ``fid``, ``edit`` and ``likelihood`` all see them."""

import os
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from cmtool.errors import MissingInput

__all__ = ["Tree", "files_below", "is_visible"]

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
    return not any(part.startswith(".") or part.casefold() in SYSTEM for part in PurePosixPath(name).parts)


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
