"""``.zip`` as EDM packs data: stored pictures ``00000/img00000000.png``, labels in ``dataset.json``.

Nothing is ever unpacked to the disk. Source of the layout: Karras et al. 2022, the data sets of arXiv 2206.00364.
"""

import contextlib
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np

from cmtool.errors import BadFile
from cmtool.files.streams.folder import LABELS, labels_in, labels_out
from cmtool.files.streams.item import Item
from cmtool.files.streams.sink import stem
from cmtool.files.streams.stored import Stored
from cmtool.pictures import MAX_BYTES, SUFFIXES, encode

__all__ = ["ZipSink", "opened", "read"]

DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError, RuntimeError, KeyError)


def read(path: Path) -> Iterator[Item]:
    """The pictures in the order of their names, as EDM numbers them; BadFile when damaged or without any."""
    with opened(path, "a .zip file") as archive:
        names = archive.namelist()
        if len(set(names)) != len(names):
            raise BadFile(f"{path} holds a file twice")
        labels = labels_in(_contents(archive, LABELS, path), f"{path}:{LABELS}") if LABELS in names else {}
        pictures = sorted(name for name in names if _is_picture(name))
        if not pictures:
            raise BadFile(f"there are no pictures in {path}", f"suffixes that are read: {', '.join(SUFFIXES)}")
        for name in set(names) - set(pictures):  # a picture whose name was damaged would not be missed
            archive.open(name).close()
        for name in pictures:
            yield Item(f"{path}:{name}", _contents(archive, name, path), labels.get(name))


@contextlib.contextmanager
def opened(path: Path, what: str) -> Iterator[zipfile.ZipFile]:
    """The archive; whatever zipfile finds wrong with it becomes a BadFile that calls it ``what``."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except DAMAGE as error:
        reason = f": {error}" if str(error) else ""
        raise BadFile(f"{path} is not {what}, or is damaged{reason}".replace("\n", " ")) from error


def _is_picture(name: str) -> bool:
    path = PurePosixPath(name)
    return path.suffix.lower() in SUFFIXES and not any(part.startswith(".") for part in path.parts)


def _contents(archive: zipfile.ZipFile, name: str, path: Path) -> bytes:
    if not name.isprintable():
        raise BadFile(f"{path} holds the name {name!r}, which is not safe")
    if archive.getinfo(name).file_size > MAX_BYTES:
        raise BadFile(f"{path} holds {name}, which is larger than {MAX_BYTES // 1_000_000} MB")
    return archive.read(name)


class ZipSink:
    """``{seed // 1000:05d}/img{seed:08d}.png``, as EDM's tools number them, and ``dataset.json`` at the end."""

    def __init__(self, file: BinaryIO, shape: tuple[int, ...], n: int, labelled: bool):
        self.file, self.archive, self.labelled = file, Stored(file), labelled
        self.labels: dict[str, int | None] = {}

    def begin(self) -> None:
        pass

    def prepare(self, seed: int, image: np.ndarray) -> bytes:
        return encode(image, level=1)

    def add(self, seed: int, data: bytes, label: int | None) -> None:
        self.archive.put(_name(seed), data)
        self.labels[_name(seed)] = label

    def finish(self) -> None:
        """Labels, and the list of the members; ``"labels": null`` is how EDM says that there are none."""
        self.archive.put(LABELS, labels_out(self.labels if self.labelled else None))
        self.archive.finish()

    def keep(self, seeds: Sequence[int], labels: Sequence[int | None]) -> int:
        entries, at = [], 0
        for seed, label, entry in zip(seeds, labels, self.archive.found(), strict=False):
            if entry.name.decode() != _name(seed):
                break
            entries.append(entry)
            at = entry.start + entry.size
            self.labels[_name(seed)] = label
        self.archive.take_up(entries, at)
        return len(entries)

    def payloads(self) -> Iterator[bytes]:
        for entry in self.archive.found():
            self.file.seek(entry.start)
            if entry.name != LABELS.encode():
                yield self.file.read(entry.size)


def _name(seed: int) -> str:
    return f"{seed // 1000:05d}/img{stem(seed)}.png"
