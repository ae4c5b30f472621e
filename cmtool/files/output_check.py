"""Where results may go: not over what the command reads, nor over what it did not make, nor where nothing can be made.

Asked before the work, so that neither a picture of the user nor an hour of measuring is lost.
"""

import os
import tempfile
import zlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from cmtool.errors import Hint, Setting, UsageError, WriteFailed
from cmtool.files.atomic import PREFIX, end_of, write_file

__all__ = ["ANOTHER_PLACE", "check_place", "check_writable", "is_same", "made_by", "mark_output"]

STREAM = "-"
ANOTHER_PLACE = Hint("name another place, or {}", Setting("overwrite"))
HEAD = 33  # bytes of a PNG before its second chunk: the signature and IHDR

Ours = Callable[[Path], bool]


def check_place(
    target: str | Path,
    inputs: Iterable[str | Path | None] = (),
    *,
    overwrite: bool = False,
    ours: Ours = lambda path: False,
) -> None:
    """UsageError where writing ``target`` would lose one of the ``inputs`` or a file, not empty, that is not ``ours``.

    With ``overwrite`` both are what the user wants. Names are the same where the system says so: through links, too.
    A folder is compared with the inputs alone: whoever writes into it asks for each file. WriteFailed where nothing
    can be written. ``-`` and devices are always fine.
    """
    if str(target) == STREAM:
        return
    path = Path(target)
    if not overwrite:
        for source in inputs:
            if source is not None and is_same(path, source):
                raise UsageError(f"{target} is read by this command, which would write over it", ANOTHER_PLACE)
        if os.path.isfile(path) and os.path.getsize(path) and not ours(path):
            raise UsageError(f"{target} exists, and this command did not make it", ANOTHER_PLACE)
    check_writable(path)


def is_same(a: str | Path, b: str | Path) -> bool:
    """Whether two names stand for one file or folder that exists: through ``./``, symbolic links and hard links."""
    try:
        return STREAM not in (str(a), str(b)) and os.path.samefile(a, b) and not _is_device(Path(a))
    except (OSError, ValueError):
        return False


def check_writable(path: Path) -> None:
    """WriteFailed where no file can be made at ``path``, whose folders need not be there yet."""
    if _is_device(path):
        return
    if "\0" in str(path):
        raise WriteFailed(f"cannot write {path}: a name has no zeros", "choose another place")
    with write_file(path):
        with suppress(FileNotFoundError):
            path.lstat()  # a name may be longer than the system allows
        end = end_of(path).absolute()
        folder = end if end.is_dir() else end.parent
        while not folder.exists():
            folder = folder.parent
        if not folder.is_dir():
            raise WriteFailed(f"cannot write {path}: {folder} is no folder", "choose another place")
        with tempfile.NamedTemporaryFile(prefix=PREFIX, dir=folder):
            pass


def mark_output(png: bytes, command: str) -> bytes:
    """The PNG with a text that says which command made it, by which ``made_by`` knows it again."""
    return png[:HEAD] + _text(command) + png[HEAD:]


def made_by(command: str) -> Ours:
    """Whether a file is a picture that this command ``mark_output``\\ ed."""

    def ours(path: Path) -> bool:
        text = _text(command)
        with path.open("rb") as file:
            return file.read(HEAD + len(text))[HEAD:] == text

    return ours


def _text(command: str) -> bytes:
    """A PNG's chunk ``tEXt`` with the keyword that its standard has for the program."""
    kind, data = b"tEXt", f"Software\0cmtool {command}".encode()
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


def _is_device(path: Path) -> bool:
    return os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path)
