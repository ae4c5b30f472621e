"""One way to write the images of a run, wherever they go, that adds only what is missing."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from cmtool.errors import UsageError
from cmtool.files.atomic import end_of
from cmtool.files.images import STREAM, check_stream, is_folder, open_writer
from cmtool.files.locks import unlocked
from cmtool.files.streams.filling import filling
from cmtool.files.streams.growing import growing, shared
from cmtool.files.streams.guard import check_file, check_folder, check_picture
from cmtool.files.streams.manifest import Wanted
from cmtool.files.streams.sink import Writer
from cmtool.files.streams.table import FORMATS

__all__ = ["check_output", "resumable", "resuming"]


def resumable(target: str) -> bool:
    """Whether what was written at ``target`` is taken up again; a pipe, and a picture of all images, begin anew."""
    path = Path(target)
    grows = target != STREAM and path.suffix.lower() in FORMATS and FORMATS[path.suffix.lower()].grows
    return is_folder(target) or (grows and (path.is_file() or not path.exists()))


def check_output(target: str, wanted: Wanted, overwrite: bool = False) -> list[str]:
    """What is to be told about ``target`` before images are made for it.

    UsageError where something would be lost or mixed in that this command did not make, unless it may ``overwrite``;
    WriteFailed where nothing can be written.
    """
    check_stream(target, wanted.shape)
    path = Path(target)
    if is_folder(target):
        return check_folder(path, wanted, overwrite) + unlocked(path)
    if target == STREAM or path.suffix.lower() not in FORMATS or (path.exists() and not path.is_file()):
        return []
    if not FORMATS[path.suffix.lower()].grows:
        return check_picture(path, wanted, overwrite)
    path = end_of(path)
    return check_file(path, wanted, overwrite) + unlocked(path.parent)


@contextlib.contextmanager
def resuming(
    target: str, wanted: Wanted, shard: int = 1, shards: int = 1, overwrite: bool = False
) -> Iterator[tuple[Writer | None, Sequence[int]]]:
    """A writer for what is missing at ``target``, or None; and the places of these images in ``wanted.cut(...)``.

    Killed and called again, with any number of ``shards``, it ends with the bytes of an uninterrupted, single run. A
    pipe, and a picture of all images, always begin anew; a picture has no shards. With ``overwrite`` images of other
    models or settings that are not wanted are removed from a folder. Errors as of ``open_writer``.
    """
    check_stream(target, wanted.shape)
    path, part = Path(target), wanted.cut(shard, shards)
    if is_folder(target):
        with filling(path, wanted, shard, shards, overwrite) as given:
            yield given
    elif resumable(target):
        path = end_of(path)  # the parts of a file are beside it, on the disk where it is to be
        with growing(path, wanted) if shards == 1 else shared(path, wanted, shard, shards) as given:
            yield given
    else:
        if target != STREAM and shards > 1:
            raise UsageError(f"{target} cannot be written in parts", "write a folder/, .zip, .tar or .npz")
        with open_writer(target, len(part), part.shape, part.labels is not None) as writer:
            yield writer, range(len(part))
