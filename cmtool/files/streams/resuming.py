"""One way to write the images of a run, wherever they go, that adds only what is missing."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from cmtool.errors import UsageError
from cmtool.files.images import STREAM, check_stream, is_folder, open_writer
from cmtool.files.streams.filling import filling
from cmtool.files.streams.growing import growing, shared
from cmtool.files.streams.manifest import Wanted
from cmtool.files.streams.sink import Writer
from cmtool.files.streams.table import FORMATS

__all__ = ["resuming"]


@contextlib.contextmanager
def resuming(
    target: str, wanted: Wanted, shard: int = 1, shards: int = 1
) -> Iterator[tuple[Writer | None, Sequence[int]]]:
    """A writer for what is missing at ``target``, or None; and the places of these images in ``wanted.cut(...)``.

    Killed and called again, with any number of ``shards``, it ends with the bytes of an uninterrupted, single run. A
    pipe, and a picture of all images, always begin anew; a picture has no shards. Errors as of ``open_writer``.
    """
    check_stream(target, wanted.shape)
    path, part = Path(target), wanted.cut(shard, shards)
    suffix = path.suffix.lower()
    if is_folder(target):
        with filling(path, wanted, shard, shards) as given:
            yield given
    elif target != STREAM and FORMATS[suffix].grows and (path.is_file() or not path.exists()):
        with growing(path, wanted) if shards == 1 else shared(path, wanted, shard, shards) as given:
            yield given
    else:
        if target != STREAM and shards > 1:
            raise UsageError(f"{target} cannot be written in parts", "write a folder/, .zip, .tar or .npz")
        with open_writer(target, len(part), part.shape, part.labels is not None) as writer:
            yield writer, range(len(part))
