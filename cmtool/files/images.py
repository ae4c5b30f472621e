"""Streams of images in and out: a folder, ``.npz``, ``.tar``, ``-`` (a tar through a pipe), or one picture.

Neither side ever holds more than two batches.
"""

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from cmtool.errors import UsageError
from cmtool.files.atomic import replacing
from cmtool.files.streams.folder import FolderWriter
from cmtool.files.streams.item import Batch
from cmtool.files.streams.npz import NpzWriter, keys
from cmtool.files.streams.reading import STREAM, stdin
from cmtool.files.streams.reading import images_of as open_reader
from cmtool.files.streams.tar import TarWriter

__all__ = ["STREAM", "Batch", "Writer", "keys", "open_reader", "open_writer", "stdin", "stdout"]


class Writer(Protocol):
    """Takes batches: ``seeds`` [B], ``images`` uint8 [B, C, H, W] or points [B, D], ``labels`` [B] where announced."""

    def write(self, seeds: Any, images: Any, labels: Any = None) -> None: ...


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


def stdout() -> BinaryIO:
    """Standard output as bytes; UsageError when it is a terminal."""
    if sys.stdout is None or sys.stdout.isatty():
        raise UsageError("'-' would write binary data to a terminal", "redirect it: cmtool sample -o - > images.tar")
    return sys.stdout.buffer


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
