"""Files that are written whole or not at all, and locks by which one process at a time writes."""

import contextlib
import errno
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO

from filelock import lock_descriptor

from cmtool.errors import WriteFailed

__all__ = [
    "end_of",
    "has_no_locks",
    "holds_open_files",
    "make_folder",
    "open_update",
    "remove",
    "replace_folder",
    "sweep",
    "sync",
    "sync_folder",
    "take_lock",
    "write_bytes",
    "write_file",
]


PREFIX = ".tmp-"
WINDOWS = os.name == "nt"
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# What file systems say that cannot force a file or folder to the disk: CIFS, shared folders of machines, some of FUSE.
UNSYNCED = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.EACCES, errno.EPERM}


@contextlib.contextmanager
def write_file(path: str | Path) -> Iterator[None]:
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
def replace_folder(path: str | Path, durable: bool = True, place: Path | None = None) -> Iterator[BinaryIO]:
    """A binary file that takes the place of ``path`` when the block ends, and vanishes when the block fails.

    It is written beside ``path`` (at ``place``, which is written over when a killed writer left it), forced to the disk
    (unless not ``durable``: one picture of thousands) and renamed. A symbolic link stays, and the file that it names is
    replaced. A pipe or a device is written to directly; folders on the way are made. WriteFailed when the system
    refuses; errors of the block itself pass, so what it writes goes inside ``write_file``.
    """
    path, named = end_of(path), Path(path)
    place = place and path.with_name(place.name) if path != named else place
    with write_file(named):
        direct = _is_direct(path)
        fresh = not direct and place is None
        place = path if direct else place or _beside(path)
        file = place.open("xb" if fresh else "wb")
    try:
        yield file
        with write_file(named):
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
        with write_file(named):
            sync_folder(path.parent)


def write_bytes(path: str | Path, data: bytes, durable: bool = True, place: Path | None = None) -> None:
    """Put ``data`` at ``path``, as ``replace_folder`` does."""
    with replace_folder(path, durable, place) as file, write_file(path):
        file.write(data)


def make_folder(path: str | Path) -> Path:
    """The folder, made with its parents where it was not there; WriteFailed when it cannot be."""
    with write_file(path):
        end_of(path).mkdir(parents=True, exist_ok=True)
    return Path(path)


def end_of(path: str | Path) -> Path:
    """Where a symbolic link to a file or folder leads in the end; any other path as it is.

    WriteFailed for links in a circle, and where the folder is not there that the file would be in: a disk that is not
    mounted is no place to make folders in.
    """
    path = Path(path)
    if not path.is_symlink() or _is_direct(path):
        return path
    end = Path(os.path.realpath(path))
    if end.is_symlink():
        raise WriteFailed(f"cannot write {path}: it is a symbolic link that leads to itself", "remove the link")
    if not end.parent.is_dir():
        text = f"cannot write {path}: it is a symbolic link to {end}, and there is no folder {end.parent}"
        raise WriteFailed(text, "make that folder, or mount its disk; or remove the link")
    return end


def open_update(path: str | Path) -> BinaryIO:
    """A file to read and to write from its start, made where it is not there; what it has stays."""
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666), "r+b")


def holds_open_files() -> bool:
    """Whether nobody can rename or remove a file that is open, and only its holder reads one that is locked: Windows.

    There a lock is taken of a file beside, and files are closed before they get their names.
    """
    return WINDOWS


def sync(number: int) -> None:
    """Force what was written through a file descriptor to the disk, where the file system can do that."""
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno not in UNSYNCED:
            raise


def sweep(folder: Path) -> None:
    """Remove what killed writers left in ``folder``, files and folders; only for whoever is its sole writer."""
    for left in folder.glob(f"{PREFIX}*"):
        remove(left)


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it; nothing where there is none.

    A folder gets another name first, so that half of one never has its name.
    """
    if path.is_dir() and not path.is_symlink():
        path = path.rename(path.with_name(f"{PREFIX}{os.getpid()}-{secrets.token_hex(4)}"))
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _is_direct(path: Path) -> bool:
    """Whether a path is that of a pipe or a device, such as ``/dev/stdout``."""
    return path.exists() and not path.is_file() and not path.is_dir()


def _beside(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.parent / f"{PREFIX}{os.getpid()}-{secrets.token_hex(4)}"


def _close(file: BinaryIO, durable: bool) -> None:
    file.flush()
    if durable:
        sync(file.fileno())
    file.close()


def sync_folder(folder: Path) -> None:
    """Force the names in a folder to the disk."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except PermissionError:  # a folder may be written to and not be read
        return
    try:
        sync(handle)
    finally:
        os.close(handle)


# What NFS without its daemon, Lustre mounted without flock, and some of FUSE say.
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}


def take_lock(file: IO[Any]) -> bool:
    """Hold ``file``, opened for writing, until it is closed; False where the file system has no locks.

    BlockingIOError when another process holds it, OSError for whatever else the system refuses.
    """
    try:
        if lock_descriptor(file.fileno(), blocking=False):
            return True
    except OSError as error:
        if error.errno in NO_LOCKS:
            return False
        raise
    raise BlockingIOError(errno.EAGAIN, "another process holds it")


def has_no_locks(folder: Path) -> list[str]:
    """The warning about a folder, or the one it will be made in, whose file system has no locks."""
    folder = folder.absolute()
    while not folder.is_dir():
        folder = folder.parent
    try:
        with tempfile.NamedTemporaryFile(prefix=PREFIX, dir=folder) as file:
            if take_lock(file):
                return []
    except OSError:
        return []  # whoever writes there says why it cannot be
    return [f"the file system of {folder} has no locks: see to it that no other process writes the same there"]
