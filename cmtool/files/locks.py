"""Locks by which one process at a time writes; some network file systems have none."""

import errno
import fcntl
import tempfile
from pathlib import Path
from typing import IO, Any

from cmtool.files.atomic import PREFIX

__all__ = ["take", "unlocked"]

# What NFS without its daemon, Lustre mounted without flock, and some of FUSE say.
NONE = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}


def take(file: IO[Any]) -> bool:
    """Hold ``file``, opened for writing, until it is closed; False where the file system has no locks.

    BlockingIOError when another process holds it, OSError for whatever else the system refuses.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in NONE:
            return False
        raise
    return True


def unlocked(folder: Path) -> list[str]:
    """What there is to be told of a folder, or of the one it will be made in, whose file system has no locks."""
    folder = folder.absolute()
    while not folder.is_dir():
        folder = folder.parent
    try:
        with tempfile.NamedTemporaryFile(prefix=PREFIX, dir=folder) as file:
            if take(file):
                return []
    except OSError:
        return []  # whoever writes there says why it cannot be
    return [f"the file system of {folder} has no locks: see to it that no other process writes the same there"]
