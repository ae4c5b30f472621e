"""Names of images in folders and archives: which are safe, which are pictures, and which belong together."""

import unicodedata
from collections import Counter
from pathlib import PurePosixPath

from cmtool.errors import BadFile
from cmtool.filetree import is_visible
from cmtool.picture_kinds import SUFFIXES, UNREAD

__all__ = ["Passed", "is_picture", "matched", "member", "told", "without_suffix"]


class Passed(Counter[str]):
    """How many pictures of each kind that is not read were passed over, and ``notes`` on what else was."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        """Keep a note that was not made before."""
        if text not in self.notes:
            self.notes.append(text)


def member(name: str, archive: str) -> str:
    """The path of a member within its archive, without ``./``; BadFile where it would lead out of a folder.

    Every other name is as good in an archive as in a folder, whatever its script, spaces and joiners.
    """
    climbs = name.startswith("/") or ".." in name.split("/")
    if climbs or any(unicodedata.category(character) == "Cc" for character in name):
        raise BadFile(f"{archive} holds the name {name!r}, which is not safe")
    return PurePosixPath(name).as_posix()


def is_picture(name: str, passed: Passed | None = None) -> bool:
    """Whether the file is one that is read; a picture of another kind is counted in ``passed``, a hidden one is not."""
    if not is_visible(name):
        return False
    suffix = PurePosixPath(name).suffix.lower()
    if passed is not None and suffix in UNREAD:
        passed[suffix] += 1
    return suffix in SUFFIXES


def told(passed: Passed) -> str:
    """``3 pictures were left out, since their kinds are not read: 2 .tif, 1 .gif``."""
    n, kinds = sum(passed.values()), ", ".join(f"{count:,} {kind}" for kind, count in sorted(passed.items()))
    those = "1 picture was left out, since its kind is" if n == 1 else f"{n:,} pictures were left out: their kinds are"
    return f"{those} not read: {kinds}"


def without_suffix(key: str) -> str:
    """``a/photo`` of ``a/photo.png``; other dots are part of the name."""
    path = PurePosixPath(key)
    return path.with_suffix("").as_posix() if path.suffix.lower() in SUFFIXES else key


def matched(key: str) -> str:
    """What two files of one name share: no suffix, and letters written in one of the ways that Unicode has."""
    return unicodedata.normalize("NFC", without_suffix(key))
