"""``.zip`` as EDM packs data: stored pictures ``00000/img00000000.png``, labels in ``dataset.json``.

Nothing is ever unpacked to the disk. Source of the layout: Karras et al. 2022, the data sets of arXiv 2206.00364.
"""

import contextlib
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from cmtool.errors import BadFile
from cmtool.files.streams.folder import LABELS, labels_in
from cmtool.files.streams.item import Item
from cmtool.pictures import MAX_BYTES, SUFFIXES

__all__ = ["opened", "read"]

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
