"""A tar of pictures (a WebDataset), read and written in one pass so that it fits a pipe: ``name.png``, ``name.cls``.

The blocks are read here and not by ``tarfile``, which ends in silence where an archive is damaged in the middle.
"""

import os
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from posixpath import basename
from typing import BinaryIO

import numpy as np

from cmtool.errors import BadFile, report_damage
from cmtool.files.streams.item import Item
from cmtool.files.streams.labels import whole_label
from cmtool.files.streams.names import SkippedFiles, check_kind, describe_skipped, is_picture, peek, safe_member
from cmtool.files.streams.sink import Called, stem
from cmtool.label_files import LABELS
from cmtool.pictures import MAX_BYTES, SUFFIXES, encode
from cmtool.user_paths import is_visible

__all__ = ["TarSink", "read", "read_stream"]

BLOCK, RECORD = tarfile.BLOCKSIZE, tarfile.RECORDSIZE
FILES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
EXTENSIONS = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
LONG = 1 << 20  # bytes of a header that says the name of the next member
LENGTH = 99  # bytes of a name that every tar holds
WAITING = 1 << 27  # bytes of pictures that may wait for the label of their sample


def read(path: Path, passed: SkippedFiles) -> Iterator[Item]:
    """The pictures of a tar file; see ``read_stream``."""
    with path.open("rb") as file:
        check_kind(peek(file), str(path), "a tar archive")
        yield from read_stream(file, str(path), passed)


def read_stream(file: BinaryIO, archive: str, passed: SkippedFiles) -> Iterator[Item]:
    """The pictures of a tar in their order, labelled by the ``.cls`` member of their sample beside them.

    A sample is what has one path up to the first dot of the base name: ``a.b/001.input.png`` and ``a.b/001.cls``.
    Hidden members and other kinds are passed over. BadFile for an archive that is cut short or damaged, and for links,
    devices, and names that are absolute, climb with ``..`` or occur twice.
    """
    sample, label, waiting, none = None, None, list[Item](), True
    for name, data in _members(file, archive):
        if not is_visible(name):
            continue
        if basename(name) == LABELS:
            passed.note(f"{archive}: labels of {name} are not used, since a tar is read in one pass; those of .cls are")
        key = _sample(name)
        if key != sample:
            yield from waiting
            sample, label, waiting = key, None, []
        if name.endswith(".cls"):
            label = _label(data, f"{archive}:{name}")
            waiting = [replace(item, label=label) for item in waiting]
        elif is_picture(name, passed):
            none = False
            waiting.append(Item(f"{archive}:{name}", data, label, name))
            if sum(len(item.source) for item in waiting if isinstance(item.source, bytes)) > WAITING:
                yield waiting.pop(0)
    if none:
        left = f"; {describe_skipped(passed)}" if passed else ""
        raise BadFile(f"there are no pictures in {archive}{left}", f"suffixes that are read: {', '.join(SUFFIXES)}")
    yield from waiting


def _sample(name: str) -> str:
    folder, slash, base = name.rpartition("/")
    return folder + slash + base.split(".", 1)[0]


def _members(file: BinaryIO, archive: str) -> Iterator[tuple[str, bytes]]:
    """Name and contents of every regular file."""
    seen: set[str] = set()
    renamed = None
    while any(block := _exactly(file, BLOCK, archive)):
        with report_damage(archive, "is not a tar archive, or is damaged"):
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        if info.type in EXTENSIONS:
            renamed = _long_name(info.type, _contents(file, info, archive, LONG)) or renamed
            continue
        name, renamed = renamed or info.name, None
        if info.type not in FILES and not info.isdir():
            raise BadFile(f"{archive} holds {name}, which is a link or a device")
        name = safe_member(name, archive)
        data = _contents(file, info, archive)
        if info.type in FILES:
            if name in seen:
                raise BadFile(f"{archive} holds {name} twice")
            seen.add(name)
            yield name, data
    while rest := file.read(RECORD):  # also lets the program at the other end of a pipe finish
        if any(rest):
            raise BadFile(f"{archive} goes on after its end", "join archives with 'tar --concatenate'")


def _exactly(file: BinaryIO, size: int, archive: str) -> bytes:
    data = file.read(size)
    if len(data) < size:
        raise BadFile(f"{archive} is cut short")
    return data


def _contents(file: BinaryIO, info: tarfile.TarInfo, archive: str, most: int = MAX_BYTES) -> bytes:
    if not 0 <= info.size <= most:
        raise BadFile(f"{archive} holds {info.name!r}, which is larger than {most // 1_000_000} MB")
    data = _exactly(file, -(-info.size // BLOCK) * BLOCK, archive)
    return data[: info.size]


def _long_name(kind: bytes, data: bytes) -> str | None:
    """The name an extension header gives to the member after it: GNU's is the data, POSIX's is a ``path`` record."""
    if kind == tarfile.GNUTYPE_LONGNAME:
        return data.rstrip(b"\0").decode("utf-8", "surrogateescape")
    found = None
    while kind == tarfile.XHDTYPE and data:  # "27 path=folder/picture.png\n", whose number counts the whole record
        length, _, _ = data.partition(b" ")
        size = int(length) if length.isdigit() and len(length) < 8 else 0
        record, data = data[len(length) + 1 : max(size - 1, 0)], data[size:] if size else b""
        if record.startswith(b"path="):
            found = record.removeprefix(b"path=").decode("utf-8", "surrogateescape")
    return found


def _label(data: bytes, name: str) -> int:
    text = data[:32].strip()
    if not text.isdigit() or len(text) > 10:
        raise BadFile(f"{name} is not a label", "a .cls file holds one whole number")
    return whole_label(int(text), name)


class TarSink:
    """``{seed:08d}.png`` and ``.cls``, one after the other; or ``called`` by the seed."""

    def __init__(self, file: BinaryIO, shape: tuple[int, ...], n: int, labelled: bool, called: Called | None = None):
        self.file, self.labelled, self.written = file, labelled, 0
        self.called = called or (lambda seed: f"{stem(seed)}.png")

    def begin(self) -> None:
        pass

    def prepare(self, seed: int, image: np.ndarray) -> bytes:
        return encode(image, level=1)

    def add(self, seed: int, data: bytes, label: int | None) -> None:
        self._member(self.called(seed), data)
        if self.labelled:
            self._member(f"{stem(seed)}.cls", str(label).encode())

    def finish(self) -> None:
        """The end of the archive, two empty blocks, and as many more as fill a record."""
        self.file.write(bytes(2 * BLOCK + -(self.written + 2 * BLOCK) % RECORD))

    def keep(self, seeds: Sequence[int], labels: Sequence[int | None]) -> int:
        kept = 0
        for end in self._ends():
            if kept == len(seeds):
                break
            kept, self.written = kept + 1, end
        self.file.seek(self.written)
        self.file.truncate()
        return kept

    def payloads(self) -> Iterator[bytes]:
        self.file.seek(0)
        return (data for name, data in _members(self.file, "the archive") if name.endswith(".png"))

    def _ends(self) -> Iterator[int]:
        """Where each image that is whole, with its label, ends."""
        size, at = self.file.seek(0, 2), 0
        while True:
            for _ in range(1 + self.labelled):
                self.file.seek(at)
                block = self.file.read(BLOCK)
                if len(block) < BLOCK or not any(block):
                    return
                try:
                    length = tarfile.TarInfo.frombuf(block, "utf-8", "replace").size
                except (tarfile.TarError, ValueError):
                    return
                if length < 0:
                    return
                at += BLOCK + length + -length % BLOCK
            if at > size:
                return
            yield at

    def _member(self, name: str, data: bytes) -> None:
        info = tarfile.TarInfo(name)  # time, owner and group are 0
        info.size = len(data)
        kind = tarfile.GNU_FORMAT if len(os.fsencode(name)) > LENGTH else tarfile.USTAR_FORMAT
        part = info.tobuf(kind, "utf-8", "surrogateescape") + data + bytes(-len(data) % BLOCK)
        self.file.write(part)
        self.written += len(part)
