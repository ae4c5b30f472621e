"""Every image stream, read the same way and never whole in memory: a folder, a file of any format, or a pipe."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from cmtool.errors import BadFile, Hint, MissingInput, Run, UsageError, check_regular
from cmtool.files.streams import folder, npy, numpy_rows, sheet, tar
from cmtool.files.streams.formats import FORMATS, StreamFormat
from cmtool.files.streams.item import Item, ItemBatch, batch_items
from cmtool.files.streams.names import HINTS, SkippedFiles, check_kind, container_of, peek
from cmtool.pictures import MAX_BYTES

__all__ = ["STREAM", "images_of", "items_of", "keys_of", "stdin"]

STREAM = "-"
PICTURES = (b"\x89PNG", b"\xff\xd8\xff", b"RIFF", b"BM")  # how PNG, JPEG, WebP and BMP begin


def images_of(target: str | Path, size: int = 64, channels: int | None = None) -> Iterator[ItemBatch]:
    """The images of ``target`` in batches of ``size``, uint8 [B, C, H, W]; ``channels`` 1 makes them grey, 3 coloured.

    MissingInput when there is nothing there, BadFile when an image is damaged or of another size than the first,
    UsageError when this kind of file is not read.
    """
    return batch_items(items_of(target), size, channels)


def items_of(target: str | Path, passed: SkippedFiles | None = None) -> Iterator[Item]:
    """The same, one by one and each of its own size; ``item.pixels`` decodes one. Errors as of ``images_of``.

    ``passed`` counts pictures of kinds that are not read.
    """
    passed = SkippedFiles() if passed is None else passed
    if str(target) == STREAM:
        return _read_pipe(stdin(), passed)
    path = Path(target)
    if path.is_dir():
        return folder.read(path, passed)
    return _format(path).read(path, passed)


def keys_of(target: str | Path) -> list[str]:
    """The ``key`` of every item of a folder or a file, in their order, without their pixels where that can be."""
    path = Path(target)
    if path.is_dir():
        return folder.keys(path)
    format = _format(path)
    return format.keys(path) if format.keys else [item.key for item in format.read(path, SkippedFiles())]


def _format(path: Path) -> StreamFormat:
    """How a file is read that is there."""
    if not path.exists():
        raise MissingInput(f"there is no file or folder {path}")
    check_regular(path, f"pipe it in: cmtool ... - < {path}")
    if path.suffix.lower() not in FORMATS:
        with path.open("rb") as file:
            kind = container_of(peek(file)) or ""
        more = HINTS.get(kind, "")
        raise UsageError(
            f"cannot read images from {path}{kind and f', of the kind: {kind}'}",
            f"what works: a folder, {', '.join(FORMATS)}, or - for a pipe{more and f'; {more}'}",
        )
    return FORMATS[path.suffix.lower()]


def stdin() -> BinaryIO:
    """Standard input as bytes; UsageError when it is a terminal."""
    if sys.stdin is None or sys.stdin.isatty():
        raise UsageError(
            "'-' reads a pipe, and nothing is piped in",
            Hint("for example: {} | {}", Run("sample", output="-"), Run("fid", "-")),
        )
    return sys.stdin.buffer


class _Begun:
    """A pipe of which the first bytes have been looked at."""

    def __init__(self, start: bytes, file: BinaryIO):
        self.start, self.file = start, file

    def read(self, size: int) -> bytes:
        start, self.start = self.start[:size], self.start[size:]
        return start + self.file.read(size - len(start)) if len(start) < size else start


def _read_pipe(file: BinaryIO, passed: SkippedFiles) -> Iterator[Item]:
    """What comes through a pipe: a tar, an .npy, or one picture, which its first bytes tell apart."""
    name, start = "standard input", file.read(tar.BLOCK)
    begun = _Begun(start, file)
    if start.startswith(numpy_rows.MAGIC):
        yield from npy.read_stream(begun, name)  # type: ignore[arg-type]
    elif start.startswith(PICTURES):
        yield from sheet.read_bytes(begun.read(MAX_BYTES + 1), name)
    elif start.startswith(b"PK"):
        raise UsageError(
            "the list of what a .zip or .npz holds is at its end, so a pipe cannot read it",
            "name the file, or pipe a tar or an .npy",
        )
    else:
        check_kind(start, name, "a tar archive")
        if len(start) < tar.BLOCK:
            raise BadFile(f"{name} is not a picture", "what works: one picture, a tar, or an .npy")
        yield from tar.read_stream(begun, name, passed)  # type: ignore[arg-type]
