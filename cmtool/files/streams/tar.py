"""A tar of pictures (a WebDataset), read and written in one pass so that it fits a pipe: ``name.png``, ``name.cls``.

The blocks are read here and not by ``tarfile``, which ends in silence where an archive is damaged in the middle.
"""

import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from posixpath import basename, splitext
from typing import BinaryIO

import numpy as np

from cmtool.errors import BadFile
from cmtool.files.streams.item import Item
from cmtool.files.streams.sink import stem
from cmtool.pictures import MAX_BYTES, SUFFIXES, encode

__all__ = ["TarSink", "read", "read_stream"]

BLOCK, RECORD = tarfile.BLOCKSIZE, tarfile.RECORDSIZE
FILES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
EXTENSIONS = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)


def read(path: Path) -> Iterator[Item]:
    """The pictures of a tar file; see ``read_stream``."""
    with path.open("rb") as file:
        yield from read_stream(file, str(path))


def read_stream(file: BinaryIO, archive: str) -> Iterator[Item]:
    """The pictures of a tar in their order, labelled by the ``.cls`` member of the same stem beside them.

    Hidden members and other kinds are passed over. BadFile for an archive that is cut short or damaged, and for links,
    devices, and names that are absolute, climb with ``..`` or occur twice.
    """
    waiting, stem, label = None, None, None
    for name, data in _members(file, archive):
        key, suffix = splitext(name)
        if suffix == ".cls":
            label = key, _label(data, f"{archive}:{name}")
            if waiting and key == stem:
                waiting = replace(waiting, label=label[1])
        elif suffix.lower() in SUFFIXES and not basename(name).startswith("."):
            if waiting:
                yield waiting
            stem = key
            waiting = Item(f"{archive}:{name}", data, label[1] if label and label[0] == stem else None)
    if not waiting:
        raise BadFile(f"there are no pictures in {archive}", f"suffixes that are read: {', '.join(SUFFIXES)}")
    yield waiting


def _members(file: BinaryIO, archive: str) -> Iterator[tuple[str, bytes]]:
    """Name and contents of every regular file."""
    seen: set[str] = set()
    renamed = None
    while any(block := _exactly(file, BLOCK, archive)):
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "replace")
        except (tarfile.TarError, ValueError):
            raise BadFile(f"{archive} is not a tar archive, or is damaged") from None
        if info.type in EXTENSIONS:
            renamed = _long_name(info.type, _contents(file, info, archive)) or renamed
            continue
        name, renamed = _safe(renamed or info.name, info, archive), None
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


def _contents(file: BinaryIO, info: tarfile.TarInfo, archive: str) -> bytes:
    if not 0 <= info.size <= MAX_BYTES:
        raise BadFile(f"{archive} holds {info.name!r}, which is larger than {MAX_BYTES // 1_000_000} MB")
    data = _exactly(file, -(-info.size // BLOCK) * BLOCK, archive)
    return data[: info.size]


def _long_name(kind: bytes, data: bytes) -> str | None:
    """The name an extension header gives to the member after it: GNU's is the data, POSIX's is a ``path`` record."""
    if kind == tarfile.GNUTYPE_LONGNAME:
        return data.rstrip(b"\0").decode("utf-8", "replace")
    records = data.split(b"\n") if kind == tarfile.XHDTYPE else []
    paths = [record.partition(b" path=")[2] for record in records if b" path=" in record]
    return paths[0].decode("utf-8", "replace") if paths else None


def _safe(name: str, info: tarfile.TarInfo, archive: str) -> str:
    if name.startswith("/") or ".." in name.split("/") or not name.isprintable():
        raise BadFile(f"{archive} holds the name {name!r}, which is not safe")
    if info.type not in FILES and not info.isdir():
        raise BadFile(f"{archive} holds {name}, which is a link or a device")
    return name.removeprefix("./")


def _label(data: bytes, name: str) -> int:
    try:
        return int(np.int64(int(data[:32])))
    except (ValueError, OverflowError):
        raise BadFile(f"{name} is not a label", "a .cls file holds one whole number") from None


class TarSink:
    """``{seed:08d}.png`` and ``.cls``, one after the other."""

    def __init__(self, file: BinaryIO, shape: tuple[int, ...], n: int, labelled: bool):
        self.file, self.labelled, self.written = file, labelled, 0

    def begin(self) -> None:
        pass

    def prepare(self, seed: int, image: np.ndarray) -> bytes:
        return encode(image, level=1)

    def add(self, seed: int, data: bytes, label: int | None) -> None:
        self._member(f"{stem(seed)}.png", data)
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
                except tarfile.TarError:
                    return
                at += BLOCK + length + -length % BLOCK
            if at > size:
                return
            yield at

    def _member(self, name: str, data: bytes) -> None:
        info = tarfile.TarInfo(name)  # time, owner and group are 0
        info.size = len(data)
        part = info.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % BLOCK)
        self.file.write(part)
        self.written += len(part)
