"""What a file is by how it begins, to be named where its suffix says something else."""

from typing import BinaryIO

from cmtool.errors import BadFile
from cmtool.pictures import kind_of

__all__ = ["HINTS", "check_kind", "container_of", "starting"]

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


def starting(file: BinaryIO, size: int = 512) -> bytes:
    """The first bytes of a file that can seek, which is left where it was."""
    start = file.read(size)
    file.seek(-len(start), 1)
    return start
