"""Streams of images in and out: a folder, ``.npz``, ``.tar``, ``-`` (a tar through a pipe), or one picture.

Neither side ever holds more than two batches.
"""

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from cmtool.errors import MissingInput, UsageError
from cmtool.files.atomic import replacing
from cmtool.files.streams.folder import FolderWriter, read_folder
from cmtool.files.streams.item import Batch, Item, batched
from cmtool.files.streams.npz import NpzWriter, keys, read_npz
from cmtool.files.streams.tar import TarWriter, read_tar
from cmtool.pictures import SUFFIXES

__all__ = ["Batch", "Writer", "keys", "open_reader", "open_writer", "stdin", "stdout"]

STREAM = "-"


class Writer(Protocol):
    """Takes batches: ``seeds`` [B], ``images`` uint8 [B, C, H, W] or points [B, D], ``labels`` [B] where announced."""

    def write(self, seeds: Any, images: Any, labels: Any = None) -> None: ...


def open_reader(target: str | Path, size: int = 64, channels: int | None = None) -> Iterator[Batch]:
    """The images of ``target`` in batches of ``size``, uint8 [B, C, H, W]; ``channels`` 1 makes them grey, 3 coloured.

    MissingInput when there is nothing there, BadFile when an image is damaged or of another size than the first,
    UsageError when this kind of file is not read.
    """
    if str(target) == STREAM:
        return batched(read_tar(stdin(), "standard input"), size, channels)
    path = Path(target)
    if path.is_dir():
        return batched(read_folder(path), size, channels)
    if not path.exists():
        raise MissingInput(f"there is no file or folder {path}")
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return read_npz(path, size, channels)
    if suffix == ".tar":
        return batched(_read_tar_file(path), size, channels)
    if suffix in SUFFIXES:
        return batched(iter([Item(str(path), path)]), size, channels)
    raise UsageError(
        f"cannot read images from {path}", f"what works: a folder, .npz, .tar, {', '.join(SUFFIXES)}, or - for a tar"
    )


def open_writer(
    target: str | Path, n: int, shape: tuple[int, ...], labelled: bool = False
) -> AbstractContextManager[Writer]:
    """A writer of ``n`` images of ``shape`` [C, H, W] (or points [D]) to ``target``, used in a ``with`` block.

    ``.npz``, ``.tar``: the file appears when the block ends well. A folder keeps what was written when it does not.
    ``-`` is a tar on standard output. UsageError for another suffix, for binary to a terminal, and for points that go
    elsewhere than ``.npz``; WriteFailed when the place cannot be written.
    """
    path, suffix = Path(target), Path(target).suffix.lower()
    if len(shape) == 1 and suffix != ".npz":
        raise UsageError(f"points cannot be written to {target}", "points go to an .npz file")
    if str(target) == STREAM:
        return _streaming(TarWriter(stdout(), "standard output", labelled))
    if path.is_dir() or not suffix or str(target).endswith("/"):
        return FolderWriter(path, labelled)
    if suffix not in (".npz", ".tar"):
        raise UsageError(
            f"cannot write images to {target}", "what works: a folder (end it with /), .npz, .tar, or - for a tar"
        )
    return _whole(path, n, shape, labelled)


def stdin() -> BinaryIO:
    """Standard input as bytes; UsageError when it is a terminal."""
    if sys.stdin is None or sys.stdin.isatty():
        raise UsageError("'-' reads a pipe, and nothing is piped in", "for example: cmtool sample -o - | cmtool fid -")
    return sys.stdin.buffer


def stdout() -> BinaryIO:
    """Standard output as bytes; UsageError when it is a terminal."""
    if sys.stdout is None or sys.stdout.isatty():
        raise UsageError("'-' would write binary data to a terminal", "redirect it: cmtool sample -o - > images.tar")
    return sys.stdout.buffer


def _read_tar_file(path: Path) -> Iterator[Item]:
    with path.open("rb") as file:
        yield from read_tar(file, str(path))


@contextmanager
def _streaming(writer: TarWriter | NpzWriter) -> Iterator[Writer]:
    try:
        yield writer
        writer.finish()
    finally:
        writer.close()


@contextmanager
def _whole(path: Path, n: int, shape: tuple[int, ...], labelled: bool) -> Iterator[Writer]:
    with replacing(path) as file:
        name = str(path)
        npz = path.suffix.lower() == ".npz"
        made = NpzWriter(file, name, n, shape, labelled) if npz else TarWriter(file, name, labelled)
        with _streaming(made) as writer:
            yield writer
