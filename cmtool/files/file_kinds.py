"""What a file is that was given as a model and is none: a pointer, a page, an archive, a picture.

Only its first bytes are looked at, and nothing is unpacked.
"""

import zipfile
from pathlib import Path
from typing import NamedTuple

from cmtool.errors import BadFile

__all__ = ["refuse_other_kinds"]

START = 1024  # bytes that are looked at
TAR = slice(257, 262)  # where a tar says that it is one
UNPACK = "unpack it, and give the file inside"
AGAIN = "copy or download it again"


class Kind(NamedTuple):
    """What a file is, in the words of a sentence that begins with its name, and what to do."""

    what: str
    hint: str


POINTER = Kind("is a pointer of Git LFS, not the file itself", "fetch the file: git lfs pull")
PAGE = Kind("is a web page (HTML), not the file that it is about", "download the file itself, not its page")
TEXT = Kind("is an XML text, such as a server's error, not a model", AGAIN)
TREE = Kind("is a tar archive, not a model", UNPACK)
STARTS = {
    b"version https://git-lfs.github.com/spec/": POINTER,
    b"/annex/objects/": Kind("is a pointer of git-annex, not the file itself", "fetch the file: git annex get"),
    b"\x1f\x8b": Kind("is compressed (gzip)", "unpack it: gunzip, or tar xzf if it is a .tar.gz"),
    b"\xfd7zXZ\x00": Kind("is compressed (xz)", "unpack it: unxz, or tar xJf if it is a .tar.xz"),
    b"BZh": Kind("is compressed (bzip2)", "unpack it: bunzip2, or tar xjf if it is a .tar.bz2"),
    b"\x28\xb5\x2f\xfd": Kind("is compressed (zstd)", "unpack it: unzstd, or tar --zstd -xf if it is a .tar.zst"),
    b"\x04\x22\x4d\x18": Kind("is compressed (lz4)", "unpack it: unlz4"),
    b"7z\xbc\xaf\x27\x1c": Kind("is a 7z archive, not a model", UNPACK),
    b"Rar!": Kind("is a rar archive, not a model", UNPACK),
    b"\x89HDF": Kind("is an HDF5 file, as Keras writes, not a model of cmtool's formats", "export it as safetensors"),
    b"GGUF": Kind("is a GGUF file, not a model of cmtool's formats", "take the weights in safetensors"),
    b"\x93NUMPY": Kind("is an array of numpy, not a model", "give the model's own file"),
    b"\x89PNG": Kind("is a picture (PNG), not a model", "give the model's own file"),
    b"\xff\xd8\xff": Kind("is a picture (JPEG), not a model", "give the model's own file"),
    b"%PDF": Kind("is a PDF, not a model", "give the model's own file"),
}


def refuse_other_kinds(path: Path) -> None:
    """BadFile that says what a file is, where that is recognized and no model is such; nothing otherwise."""
    found = _kind(path)
    if found:
        raise BadFile(f"{path} {found.what}", found.hint)


def _kind(path: Path) -> Kind | None:
    if not path.is_file():
        return None
    with path.open("rb") as file:
        start = file.read(START)
    if not start.strip(b"\0"):
        return Kind("is empty" if not start else "holds nothing but zeros", AGAIN)
    known = next((kind for sign, kind in STARTS.items() if start.startswith(sign)), None)
    if known:
        return known
    if start[TAR] == b"ustar":
        return TREE
    if start.startswith(b"PK"):
        return _zip(path)
    return _text(start.removeprefix(b"\xef\xbb\xbf").lstrip().lower())


def _text(start: bytes) -> Kind | None:
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<body")) or b"<html" in start[:512]:
        return PAGE
    return TEXT if start.startswith((b"<?xml", b"<error")) else None


def _zip(path: Path) -> Kind | None:
    """A zip that torch.save did not write, or that has lost its end, where a zip's table stands."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name, _ in zip(archive.namelist(), range(10_000), strict=False)]
    except Exception:  # there is no end to what a broken zip can make a reader raise
        return Kind("is a zip, as torch.save writes, that is cut short or damaged", AGAIN)
    if any(name.endswith(".npy") for name in names):
        return Kind("is an archive of numpy's arrays (.npz), not a model", "give the model's own file")
    return None if any(name.endswith("data.pkl") for name in names) else Kind("is a zip archive, not a model", UNPACK)
