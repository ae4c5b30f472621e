"""A zip whose members are stored as they are, written front to back, that can be taken up again where it was cut.

``zipfile`` cannot go on with an archive that has no list of its contents yet. Source: PKWARE APPNOTE 6.3.10, sections
4.3.7 (local header), 4.3.12 (central directory), 4.3.14 to 4.3.16 (the ends), 4.5.3 (sizes above 4 GiB).
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

__all__ = ["Entry", "ZipWriter", "encoded"]

LOCAL = struct.Struct("<4s5H3L2H")
CENTRAL = struct.Struct("<4s6H3L5H2L")
END = struct.Struct("<4s4H2LH")
BIG_END = struct.Struct("<4sQ2H2L4Q")
LOCATOR = struct.Struct("<4sLQL")
FULL, MANY = 0xFFFFFFFF, 0xFFFF
VERSION, DAY = 45, 0x21  # 4.5: knows large files; 1 January 1980, the first day there is


@dataclass
class Entry:
    """A member: its name, the length of its data and their checksum, and where its header and its data begin."""

    name: bytes
    size: int
    crc: int
    offset: int
    start: int


class ZipWriter:
    """Members go to ``file``, which can seek where sums are not known before the data are written."""

    def __init__(self, file: BinaryIO):
        self.file, self.entries, self.at = file, [], 0

    def put(self, name: str, data: bytes) -> None:
        """A whole member."""
        self.begin(name, len(data), zlib.crc32(data))
        self.write(data)

    def begin(self, name: str, size: int, crc: int = 0) -> Entry:
        """The header of a member of ``size`` bytes, which come by ``write``."""
        head = _local(encoded(name), size, crc)
        entry = Entry(encoded(name), size, crc, self.at, self.at + len(head))
        self.entries.append(entry)
        self.write(head)
        return entry

    def write(self, data: bytes) -> None:
        self.file.write(data)
        self.at += len(data)

    def close(self, entry: Entry, crc: int) -> None:
        """Put in the checksum of a member that was written block by block."""
        entry.crc = crc
        self.file.seek(entry.offset)
        self.file.write(_local(entry.name, entry.size, crc))
        self.file.seek(self.at)

    def finish(self) -> None:
        """The list of the members, by which readers find them."""
        start = self.at
        for entry in self.entries:
            self.write(_central(entry))
        count, size = len(self.entries), self.at - start
        if count >= MANY or start + size >= FULL:
            end = BIG_END.pack(b"PK\6\6", 44, VERSION, VERSION, 0, 0, count, count, size, start)
            self.write(end + LOCATOR.pack(b"PK\6\7", 0, start + size, 1))
        many = min(count, MANY)
        self.write(END.pack(b"PK\5\6", 0, 0, many, many, min(size, FULL), min(start, FULL), 0))

    def found(self) -> Iterator[Entry]:
        """The members in ``file`` that are whole as far as their length goes, from the front; nothing is taken up."""
        end, at = self.file.seek(0, 2), 0
        while (entry := self.header(at)) and entry.start + entry.size <= end:
            yield entry
            at = entry.start + entry.size

    def header(self, offset: int = 0) -> Entry | None:
        """The member whose header is at ``offset``, if there is one."""
        self.file.seek(offset)
        head = self.file.read(LOCAL.size)
        if len(head) < LOCAL.size or not head.startswith(b"PK\3\4"):
            return None
        *_, crc, _, size, length, extra = LOCAL.unpack(head)
        name, more = self.file.read(length), self.file.read(extra)
        if size == FULL and len(more) == 20:
            size = struct.unpack("<2H2Q", more)[2]
        return Entry(name, size, crc, offset, offset + LOCAL.size + length + extra)

    def take_up(self, entries: list[Entry], at: int) -> None:
        """Go on at ``at``, where the last of ``entries`` ends or is to grow; what lies behind it is cut off."""
        self.entries, self.at = entries, at
        self.file.seek(at)
        self.file.truncate()


def encoded(name: str) -> bytes:
    """UTF-8; bytes of a file name that are none stay as they are."""
    return name.encode("utf-8", "surrogateescape")


def _flags(name: bytes) -> int:
    """Bit 11 says that the name is UTF-8, which ASCII does not need (APPNOTE 4.4.4)."""
    try:
        return 0 if name.decode().isascii() else 0x800
    except UnicodeDecodeError:
        return 0


def _local(name: bytes, size: int, crc: int) -> bytes:
    more = struct.pack("<2H2Q", 1, 16, size, size) if size >= FULL else b""
    small = min(size, FULL)
    return (
        LOCAL.pack(b"PK\3\4", VERSION, _flags(name), 0, 0, DAY, crc, small, small, len(name), len(more)) + name + more
    )


def _central(entry: Entry) -> bytes:
    size, offset = min(entry.size, FULL), min(entry.offset, FULL)
    large = [value for value in (entry.size, entry.size, entry.offset) if value >= FULL]
    more = struct.pack(f"<2H{len(large)}Q", 1, 8 * len(large), *large) if large else b""
    numbers = (entry.crc, size, size, len(entry.name), len(more), 0, 0, 0, 0o100644 << 16, offset)
    return (
        CENTRAL.pack(b"PK\1\2", 3 << 8 | VERSION, VERSION, _flags(entry.name), 0, 0, DAY, *numbers) + entry.name + more
    )
