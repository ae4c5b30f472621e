"""Files that are either the old one or the new one, never half of either."""

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from cmtool.errors import WriteFailed

__all__ = ["make_folder", "replacing", "sweep", "write_bytes", "writing"]

PREFIX = ".tmp-"
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextlib.contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """What the system refuses inside the block becomes a WriteFailed that names ``path``; a closed pipe stays one."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        hint = "free some space, or write elsewhere" if error.errno in FULL else "choose another place"
        blocked = isinstance(error, FileExistsError | NotADirectoryError)
        reason = "a file is in the way" if blocked else error.strerror or error
        raise WriteFailed(f"cannot write {path}: {reason}", hint) from error


@contextlib.contextmanager
def replacing(path: str | Path, durable: bool = True, place: Path | None = None) -> Iterator[BinaryIO]:
    """A binary file that takes the place of ``path`` when the block ends, and vanishes when the block fails.

    It is written beside ``path`` (at ``place``, which is written over when a killed writer left it), forced to the disk
    (unless not ``durable``: one picture of thousands) and renamed. A pipe or a device is written to directly; folders
    on the way are made. WriteFailed when the system refuses; errors of the block itself pass, so what it writes goes
    inside ``writing``.
    """
    path = Path(path)
    with writing(path):
        direct = path.exists() and not path.is_file() and not path.is_dir()
        fresh = not direct and place is None
        place = path if direct else place or _beside(path)
        file = place.open("xb" if fresh else "wb")
    try:
        yield file
        with writing(path):
            _close(file, durable and not direct)
            if not direct:
                place.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):  # a full disk refuses again what the buffer still holds
            file.close()
        if not direct:
            place.unlink(missing_ok=True)
        raise
    if durable and not direct:
        _sync_folder(path.parent)


def write_bytes(path: str | Path, data: bytes, durable: bool = True, place: Path | None = None) -> None:
    """Put ``data`` at ``path``, as ``replacing`` does."""
    with replacing(path, durable, place) as file, writing(path):
        file.write(data)


def make_folder(path: str | Path) -> Path:
    """The folder, made with its parents where it was not there; WriteFailed when it cannot be."""
    with writing(path):
        Path(path).mkdir(parents=True, exist_ok=True)
    return Path(path)


def sweep(folder: Path) -> None:
    """Remove what killed writers left in ``folder``; only for whoever is its sole writer."""
    for left in folder.glob(f"{PREFIX}*"):
        left.unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.parent / f"{PREFIX}{os.getpid()}-{secrets.token_hex(4)}"


def _close(file: BinaryIO, durable: bool) -> None:
    file.flush()
    if durable:
        os.fsync(file.fileno())
    file.close()


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
