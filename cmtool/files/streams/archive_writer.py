"""A file of images that a killed run leaves behind as ``out.tar.part``, and the next one goes on with.

out.tar.part    out.tar.manifest.jsonl.part     while images are added: first the image, then its line
out.tar         out.tar.manifest.jsonl          at the end, the manifest first
out.tar.3-of-8  out.tar.3-of-8.manifest.jsonl   the third of eight parts; who ends the last joins them
"""

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import BinaryIO, cast

from cmtool.errors import UsageError
from cmtool.files.atomic import holds_open_files, open_update, sync, write_bytes, write_file
from cmtool.files.streams.formats import FORMATS
from cmtool.files.streams.manifest import MANIFEST, ImageSettings, agreement, beside, hold_manifest, is_complete
from cmtool.files.streams.sink import GrowingSink, Writer
from cmtool.files.streams.zip import ZipSink

__all__ = ["archive_writer", "shard_path", "shared_archive_writer"]

CHUNK = 64  # images that are joined at a time


@contextlib.contextmanager
def archive_writer(
    target: Path, wanted: ImageSettings, suffix: str | None = None
) -> Iterator[tuple[Writer | None, Sequence[int]]]:
    """A writer for what ``target`` lacks, and the places of those images in ``wanted``; None when it is complete.

    What a killed run left is taken up, and so is a finished file whose images are the first of ``wanted``. The target
    appears when the block ends well; what is there is kept when it does not. UsageError while another process writes.
    """
    manifest, part = beside(target, MANIFEST), beside(target, "part")
    lines = beside(manifest, "part")
    renamed = part.exists() and not lines.exists()  # killed after the manifest and before the target got its name
    if is_complete(target, wanted) and not renamed:
        yield None, ()
        return
    with write_file(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    with hold_manifest(part) as file, _journal(target, wanted, file) as journal:
        make = FORMATS[suffix or target.suffix.lower()].sink
        assert make
        sink = cast(GrowingSink, make(file, wanted.shape, len(wanted), wanted.labels is not None))
        if isinstance(sink, ZipSink):
            sink.classes = wanted.classes
        known = agreement(lines, wanted)
        with write_file(part):
            kept = sink.keep(wanted.seeds[:known], [wanted.label(i) for i in range(known)])
            journal.truncate(sum(len(line.encode()) for line in islice(wanted.lines(), kept)))
            journal.seek(0, os.SEEK_END)

        def taken(seeds: Sequence[int], labels: Sequence[int | None]) -> None:
            with write_file(lines):
                journal.write("".join(map(wanted.line, seeds, labels)).encode())
                journal.flush()

        writer = Writer(sink, str(target), file.flush, taken)
        try:
            yield writer, range(kept, len(wanted))
            writer.finish()
        except BaseException:
            with contextlib.suppress(Exception):
                writer.settle()  # what was generated is kept
            raise
        finally:
            writer.close()
        with write_file(target):
            for one in (file, journal):
                sync(one.fileno())
                if holds_open_files():
                    one.close()
            lines.replace(manifest)
            part.replace(target)


@contextlib.contextmanager
def _journal(target: Path, wanted: ImageSettings, file: BinaryIO) -> Iterator[BinaryIO]:
    """The lines of what ``file`` holds; one not yet begun starts as a copy of the finished target where that helps."""
    manifest = beside(target, MANIFEST)
    journal, begun = beside(manifest, "part"), file.seek(0, os.SEEK_END) > 0
    agreed = agreement(manifest, wanted)
    if agreed and not (begun and journal.exists()):
        with write_file(target):
            if not begun and target.is_file():
                with target.open("rb") as old:
                    shutil.copyfileobj(old, file)
                file.flush()
            lines = "".join(islice(wanted.lines(), agreed)).encode()
            write_bytes(journal, lines, durable=False, place=beside(journal, "copy"))
    with write_file(journal):
        opened = open_update(journal)
    with opened:
        yield opened


@contextlib.contextmanager
def shared_archive_writer(
    target: Path, wanted: ImageSettings, shard: int, shards: int
) -> Iterator[tuple[Writer | None, Sequence[int]]]:
    """The same for one of several processes that write ``target`` together, each a part; the last one joins them.

    The places are those within ``wanted.cut(shard, shards)``.
    """
    suffix = target.suffix.lower()
    if is_complete(target, wanted):
        yield None, ()
    else:
        with archive_writer(shard_path(target, shard, shards), wanted.cut(shard, shards), suffix) as given:
            yield given
    _join(target, wanted, shards, suffix)


def shard_path(target: Path, shard: int, shards: int) -> Path:
    """The file of one part, until the last one joins them."""
    return beside(target, f"{shard}-of-{shards}")


def _join(target: Path, wanted: ImageSettings, shards: int, suffix: str) -> None:
    """Make one file of all parts, unless some are not there yet, or another process is at it."""
    parts = [(shard_path(target, k + 1, shards), wanted.cut(k + 1, shards)) for k in range(shards)]
    if not is_complete(target, wanted):
        if not all(is_complete(*part) for part in parts):
            return
        try:
            with archive_writer(target, wanted, suffix) as (writer, places):
                images = islice(_images(parts, suffix), len(wanted) - len(places), None)
                while writer and (some := list(islice(images, CHUNK))):
                    writer.add(some)
        except UsageError:  # held by another process
            return
    for path, _ in parts:
        path.unlink(missing_ok=True)
        beside(path, MANIFEST).unlink(missing_ok=True)


def _images(parts: Sequence[tuple[Path, ImageSettings]], suffix: str) -> Iterator[tuple[int, bytes, int | None]]:
    for path, wanted in parts:
        make = FORMATS[suffix].sink
        assert make
        with path.open("rb") as file:
            sink = cast(GrowingSink, make(file, wanted.shape, len(wanted), wanted.labels is not None))
            for i, data in enumerate(sink.payloads()):
                yield wanted.seeds[i], data, wanted.label(i)
