"""Writing image streams: a folder, a file of any format, or ``-`` (a tar through a pipe), from the start or resumed.

Neither side ever holds more than two batches.
"""

import contextlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import BinaryIO

from cmtool.errors import Hint, Run, UsageError
from cmtool.files.atomic import end_of, has_no_locks, replace_folder
from cmtool.files.streams.archive_writer import archive_writer, shared_archive_writer
from cmtool.files.streams.folder import FolderSink
from cmtool.files.streams.folder_writer import folder_writer
from cmtool.files.streams.formats import FORMATS, WRITTEN
from cmtool.files.streams.item import ItemBatch
from cmtool.files.streams.manifest import ImageSettings
from cmtool.files.streams.npz import keys
from cmtool.files.streams.overwrite import check_file, check_folder, check_picture
from cmtool.files.streams.reader import STREAM, images_of, items_of, stdin
from cmtool.files.streams.reader import images_of as open_reader
from cmtool.files.streams.sink import Called, Writer
from cmtool.files.streams.tar import TarSink

__all__ = [
    "STREAM",
    "ItemBatch",
    "Writer",
    "check_output",
    "check_stream",
    "images_of",
    "is_folder",
    "items_of",
    "keys",
    "open_reader",
    "open_writer",
    "resumable",
    "resuming_writer",
    "stdin",
    "stdout",
]


def open_writer(
    target: str | Path, n: int, shape: tuple[int, ...], labelled: bool = False, called: Called | None = None
) -> AbstractContextManager[Writer]:
    """A writer of ``n`` images of ``shape`` [C, H, W] (or points [D]) to ``target``, used in a ``with`` block.

    ``called`` gives the names of files in a .zip or .tar by the seeds. A file appears when the block ends well. A
    folder keeps what was written when it does not. ``-`` is a tar on standard output. UsageError for another suffix,
    for binary to a terminal, and for points that go elsewhere than ``.npz`` and ``.npy``; WriteFailed when the place
    cannot be written.
    """
    check_stream(target, shape)
    if str(target) == STREAM:
        return _pipe_writer(shape, n, labelled, called)
    if is_folder(target):
        return _folder(Path(target), labelled)
    return _whole(Path(target), n, shape, labelled, called)


POINTS = [suffix for suffix, format in FORMATS.items() if format.points]


def check_stream(target: str | Path, shape: tuple[int, ...]) -> None:
    """UsageError for a place where images of ``shape`` cannot be written."""
    if str(target) == STREAM:
        stdout()
    elif not is_folder(target) and Path(target).suffix.lower() not in WRITTEN:
        works = f"what works: a folder (end it with /), {', '.join(WRITTEN)}, or - for a tar"
        raise UsageError(f"cannot write images to {target}", works)
    if len(shape) == 1 and Path(target).suffix.lower() not in POINTS:
        raise UsageError(f"points cannot be written to {target}", f"points go to {' or '.join(POINTS)}")


def is_folder(target: str | Path) -> bool:
    """Whether images go to files of their own in ``target``."""
    path = Path(target)
    return str(target) != STREAM and (path.is_dir() or not path.suffix or str(target).endswith("/"))


def stdout() -> BinaryIO:
    """Standard output as bytes; UsageError when it is a terminal."""
    if sys.stdout is None:
        raise UsageError("'-' writes to standard output, which is closed", "name a file, or pipe it somewhere")
    if sys.stdout.isatty():
        raise UsageError(
            "'-' would write binary data to a terminal", Hint("redirect it: {} > images.tar", Run("sample", output="-"))
        )
    return sys.stdout.buffer


@contextmanager
def _pipe_writer(shape: tuple[int, ...], n: int, labelled: bool, called: Called | None) -> Iterator[Writer]:
    file = stdout()
    with _open(Writer(TarSink(file, shape, n, labelled, called), "standard output", file.flush)) as writer:
        yield writer
        writer.finish()


@contextmanager
def _folder(root: Path, labelled: bool) -> Iterator[Writer]:
    with _open(Writer(FolderSink(root, labelled), str(root), lambda: None)) as writer:
        try:
            yield writer
        finally:  # also after an error or Ctrl-C: what was generated is kept
            writer.finish()


@contextmanager
def _whole(path: Path, n: int, shape: tuple[int, ...], labelled: bool, called: Called | None) -> Iterator[Writer]:
    format = FORMATS[path.suffix.lower()]
    assert format.sink
    names = (called,) if format.named else ()
    with replace_folder(path) as file:
        sink = format.sink(file, shape, n, labelled, *names)
        with _open(Writer(sink, str(path), file.flush)) as writer:
            yield writer
            writer.finish()


@contextmanager
def _open(writer: Writer) -> Iterator[Writer]:
    try:
        writer.begin()
        yield writer
    finally:
        writer.close()


def resumable(target: str) -> bool:
    """Whether what was written at ``target`` is taken up again; a pipe, and a picture of all images, begin anew."""
    path = Path(target)
    grows = target != STREAM and path.suffix.lower() in FORMATS and FORMATS[path.suffix.lower()].grows
    return is_folder(target) or (grows and (path.is_file() or not path.exists()))


def check_output(target: str, wanted: ImageSettings, overwrite: bool = False) -> list[str]:
    """The remarks about ``target`` before images are made for it.

    UsageError where something would be lost or mixed in that this command did not make, unless it may ``overwrite``;
    WriteFailed where nothing can be written.
    """
    check_stream(target, wanted.shape)
    path = Path(target)
    if is_folder(target):
        return check_folder(path, wanted, overwrite) + has_no_locks(path)
    if target == STREAM or path.suffix.lower() not in FORMATS or (path.exists() and not path.is_file()):
        return []
    if not FORMATS[path.suffix.lower()].grows:
        return check_picture(path, wanted, overwrite)
    path = end_of(path)
    return check_file(path, wanted, overwrite) + has_no_locks(path.parent)


@contextlib.contextmanager
def resuming_writer(
    target: str, wanted: ImageSettings, shard: int = 1, shards: int = 1, overwrite: bool = False
) -> Iterator[tuple[Writer | None, Sequence[int]]]:
    """A writer for what is missing at ``target``, or None; and the places of these images in ``wanted.cut(...)``.

    Killed and called again, with any number of ``shards``, it ends with the bytes of an uninterrupted, single run. A
    pipe, and a picture of all images, always begin anew; a picture has no shards. With ``overwrite`` images of other
    models or settings that are not wanted are removed from a folder. Errors as of ``open_writer``.
    """
    check_stream(target, wanted.shape)
    path, part = Path(target), wanted.cut(shard, shards)
    if is_folder(target):
        with folder_writer(path, wanted, shard, shards, overwrite) as given:
            yield given
    elif resumable(target):
        path = end_of(path)  # the parts of a file are beside it, on the disk where it is to be
        with (
            archive_writer(path, wanted) if shards == 1 else shared_archive_writer(path, wanted, shard, shards) as given
        ):
            yield given
    else:
        if target != STREAM and shards > 1:
            raise UsageError(f"{target} cannot be written in parts", "write a folder/, .zip, .tar or .npz")
        with open_writer(target, len(part), part.shape, part.labels is not None) as writer:
            yield writer, range(len(part))
