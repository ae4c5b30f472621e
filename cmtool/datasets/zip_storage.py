"""Pictures of a ``.zip``, as EDM packs data, read in place by any number of threads."""

import zipfile
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from cmtool.datasets.archive_names import ArchiveNames, whole
from cmtool.datasets.positional import PositionalFile
from cmtool.datasets.storage import distinct_sizes, show_path
from cmtool.errors import BadFile
from cmtool.pictures import MAX_BYTES, Size, decode, size_from_start, size_of_file

__all__ = ["ZipStorage", "member_start"]

PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # others can grow without bounds while they are read
HEADER, EXTRA = 30, 192  # bytes of a header before the name, and those from it on that are read along
LOOKS = (64, 1 << 12, 1 << 16)  # bytes of a picture that mostly tell its size, of a PNG the first of them
ENCRYPTED = 1
Where = tuple[int, int, int, int, int]


class ZipStorage:
    """A zip whose members are stored or deflated; ``marks`` are its checksums."""

    what, rows, labels = "archive", None, ()
    class_names: Mapping[int, str] = {}

    def __init__(self, path: Path):
        with whole(path, "a .zip file"), zipfile.ZipFile(path) as archive:
            every = archive.infolist()
        files, folders = ([info.filename for info in every if info.is_dir() == wanted] for wanted in (False, True))
        found = ArchiveNames(path, files, folders)
        self.path, self.name, self.names, self.top = path, show_path(path.name), found.names, found.top
        self.unused, self.empty, self.remark, self.labels_in = found.unused, found.empty, found.remark, found.labels_in
        self.file = PositionalFile(path)
        by_name = {info.filename: info for info in every}
        members = [by_name[name] for name in found.members]
        self.marks = {name: info.CRC for name, info in zip(self.names, members, strict=True)}
        with whole(path, "a .zip file"):
            self._members = np.array([_where(info) for info in members], np.int64)
        self.text = None
        if found.list is not None:
            self.text = self._contents(_where(by_name[found.list]), show_path(f"{path}:{found.list}"))

    def call(self, index: int) -> str:
        return show_path(f"{self.path}:{self.top}{self.names[index]}")

    def size(self, index: int) -> Size:
        where = at, packed, _, _, packing = self._members[index].tolist()
        for most in LOOKS if packing == zipfile.ZIP_STORED else ():
            with whole(self.path, "a .zip file"):
                data = self.file.read(at, HEADER + EXTRA + most)
                start = member_start(data)
            if size := size_from_start(data[start : start + packed]):
                return size
        return size_of_file(self._contents(where, self.call(index)), self.call(index))

    def sizes(self) -> Collection[Size]:
        return distinct_sizes(self)

    def pixels(self, index: int) -> np.ndarray:
        return decode(self._contents(self._members[index].tolist(), self.call(index)), self.call(index))

    def _contents(self, where: Where, title: str) -> bytes:
        at, packed, size, checksum, packing = where
        if size > MAX_BYTES:
            raise BadFile(f"{title} is larger than {MAX_BYTES // 1_000_000} MB")
        if packing not in PACKED:
            raise BadFile(f"{title} is packed in a way that is not read", "pack with deflate, and without a password")
        with whole(self.path, "a .zip file"):
            data = self.file.read(at, HEADER + EXTRA + packed)
            start = member_start(data)
            if len(data) < start + packed:
                data = data[:start] + self.file.read(at + start, packed) if len(data) >= start else b""
            data = data[start : start + packed]
            if packing == zipfile.ZIP_DEFLATED:  # one byte more than it should have shows that it has more
                data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, size + 1)
            if len(data) != size or zlib.crc32(data) != checksum:
                raise zipfile.BadZipFile(f"Bad CRC-32 for {title}")
            return data


def member_start(data: bytes) -> int:
    """Where a member begins whose header begins ``data``; BadZipFile where there is none."""
    if data[:4] != b"PK\3\4" or len(data) < HEADER:
        raise zipfile.BadZipFile("a member is not where the list says")
    return HEADER + int.from_bytes(data[26:28], "little") + int.from_bytes(data[28:30], "little")


def _where(info: zipfile.ZipInfo) -> Where:
    """Where the header stands, the size in the archive and outside, the checksum, how it is packed; -1: encrypted."""
    packing = -1 if info.flag_bits & ENCRYPTED else info.compress_type
    return info.header_offset, info.compress_size, info.file_size, info.CRC, packing
