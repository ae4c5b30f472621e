"""Names of images in folders and archives: which are safe, which are pictures, which belong together.

And what a file is by how it begins.
"""

import unicodedata
from collections import Counter
from pathlib import PurePosixPath
from typing import BinaryIO

from cmtool.errors import BadFile
from cmtool.picture_kinds import SUFFIXES, UNREAD
from cmtool.pictures import kind_of
from cmtool.user_paths import is_visible

__all__ = [
    "HINTS",
    "SkippedFiles",
    "check_kind",
    "container_of",
    "describe_skipped",
    "is_picture",
    "match_key",
    "peek",
    "safe_member",
    "without_suffix",
]


class SkippedFiles(Counter[str]):
    """How many pictures of each kind that is not read were passed over, and ``notes`` on what else was."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        """Keep a note that was not made before."""
        if text not in self.notes:
            self.notes.append(text)


def safe_member(name: str, archive: str) -> str:
    """The path of a member within its archive, without ``./``; BadFile where it would lead out of a folder.

    Every other name is as good in an archive as in a folder, whatever its script, spaces and joiners.
    """
    climbs = name.startswith("/") or ".." in name.split("/")
    if climbs or any(unicodedata.category(character) == "Cc" for character in name):
        raise BadFile(f"{archive} holds the name {name!r}, which is not safe")
    return PurePosixPath(name).as_posix()


def is_picture(name: str, passed: SkippedFiles | None = None) -> bool:
    """Whether the file is one that is read; a picture of another kind is counted in ``passed``, a hidden one is not."""
    if not is_visible(name):
        return False
    suffix = PurePosixPath(name).suffix.lower()
    if passed is not None and suffix in UNREAD:
        passed[suffix] += 1
    return suffix in SUFFIXES


def describe_skipped(passed: SkippedFiles) -> str:
    """``3 pictures were left out, since their kinds are not read: 2 .tif, 1 .gif``."""
    n, kinds = sum(passed.values()), ", ".join(f"{count:,} {kind}" for kind, count in sorted(passed.items()))
    those = "1 picture was left out, since its kind is" if n == 1 else f"{n:,} pictures were left out: their kinds are"
    return f"{those} not read: {kinds}"


def without_suffix(key: str) -> str:
    """``a/photo`` of ``a/photo.png``; other dots are part of the name."""
    path = PurePosixPath(key)
    return path.with_suffix("").as_posix() if path.suffix.lower() in SUFFIXES else key


def match_key(key: str) -> str:
    """What two files of one name share: no suffix, and letters written in one of the ways that Unicode has."""
    return unicodedata.normalize("NFC", without_suffix(key))


HINTS = {
    **dict.fromkeys(("gzip file", "bzip2 file", "xz file", "zstd file"), "unpack it: gzip -dc FILE | cmtool ... -"),
    "Git LFS pointer": "fetch the file itself with: git lfs pull",
    "HTML page": "the download went wrong: get the file itself",
}


def container_of(start: bytes) -> str | None:
    """``gzip file``, ``tar archive``, ``HTML page``, ... of the first 512 bytes; None where they tell nothing."""
    return "tar archive" if start[257:262] == b"ustar" else kind_of(start)


def check_kind(start: bytes, name: str, what: str) -> None:
    """BadFile that says what a file is that does not begin as ``what`` does, where its first bytes tell."""
    kind = container_of(start)
    if kind and kind not in what:
        raise BadFile(f"{name} is not {what}, but of the kind: {kind}", HINTS.get(kind))


def peek(file: BinaryIO, size: int = 512) -> bytes:
    """The first bytes of a file that can seek, which is left where it was."""
    start = file.read(size)
    file.seek(-len(start), 1)
    return start
