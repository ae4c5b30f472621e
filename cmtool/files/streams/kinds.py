"""What a file is by how it begins, to be named where its suffix says something else."""

import os
from pathlib import Path
from typing import BinaryIO

from cmtool.errors import BadFile

__all__ = ["check_kind", "check_regular", "kind_of", "starting"]

STARTS = {
    b"\x1f\x8b": "compressed by gzip",
    b"BZh": "compressed by bzip2",
    b"\xfd7zXZ\0": "compressed by xz",
    b"\x28\xb5\x2f\xfd": "compressed by zstd",
    b"\x04\x22\x4d\x18": "compressed by lz4",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!": "a rar archive",
    b"PK\3\4": "a zip archive",
    b"PK\5\6": "an empty zip archive",
    b"\x93NUMPY": "an array of numpy (.npy)",
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"GIF8": "a GIF picture",
    b"II*\0": "a TIFF picture",
    b"MM\0*": "a TIFF picture",
    b"\x89HDF": "an HDF5 file",
    b"%PDF": "a PDF document",
    b"version https://git-lfs": "a pointer of Git LFS, not the file itself",
}
HINTS = {
    "compressed by": "unpack it first, or pipe it: gzip -dc FILE | cmtool ... -",
    "a pointer of Git LFS": "fetch the file: git lfs pull",
    "a web page": "the download went wrong: get the file itself",
    "a zip archive": "call it .zip",
}
WEB = (b"<!doctype html", b"<html", b"<?xml", b"<head")


def kind_of(start: bytes) -> str | None:
    """``compressed by gzip``, ``a web page``, ... of the first bytes; None where they tell nothing."""
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(WEB):
        return "a web page"
    if start[257:262] == b"ustar":
        return "a tar archive"
    return next((kind for begin, kind in STARTS.items() if start.startswith(begin)), None)


def check_kind(start: bytes, name: str, what: str) -> None:
    """BadFile that says what a file is that does not begin as ``what`` does, where its first bytes tell."""
    kind = kind_of(start)
    if kind and kind != what:
        hint = next((hint for begin, hint in HINTS.items() if kind.startswith(begin)), None)
        raise BadFile(f"{name} is not {what}, but {kind}", hint)


def check_regular(path: Path) -> None:
    """BadFile for a named pipe or a device, whose reader would wait for ever."""
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        raise BadFile(f"{path} is a pipe or a device, not a file", f"pipe it in: cmtool ... - < {path}")


def starting(file: BinaryIO, size: int = 512) -> bytes:
    """The first bytes of a file that can seek, which is left where it was."""
    start = file.read(size)
    file.seek(-len(start), 1)
    return start
