"""What a tar holds and where: its headers alone are read, and nothing of it is unpacked."""

import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from cmtool.datasets.positional import PositionalFile
from cmtool.datasets.storage import show_path
from cmtool.errors import BadFile
from cmtool.pictures import MAX_BYTES, kind_of

__all__ = ["Member", "tar_members"]

BLOCK = tarfile.BLOCKSIZE
EXTENSIONS = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
FILES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
LONGEST = 1 << 20  # bytes of a name


class Member(NamedTuple):
    """A file, or a folder, whose name ends with ``/``: where it begins, its size, and its first 512 bytes or fewer."""

    name: str
    start: int
    size: int
    begins: bytes


class _Header(NamedTuple):
    name: str
    size: int
    type: bytes


def tar_members(path: Path, file: PositionalFile) -> Iterator[Member]:
    """Every regular file and every folder of a tar, in its order.

    BadFile for links and devices, and for an archive that is compressed, cut short or damaged.
    """
    title, renamed, at = show_path(str(path)), None, 0
    while any(block := (data := file.read(at, 2 * BLOCK))[:BLOCK]):
        if at == 0 and (kind := kind_of(block)):
            raise BadFile(f"{title} is a {kind} and no tar", "uncompress it first")
        header = _plain_header(block) or _header(block, title)
        start, at = at + BLOCK, at + BLOCK + -(-header.size // BLOCK) * BLOCK
        if not 0 <= header.size <= MAX_BYTES:
            raise BadFile(f"{title} holds a file that is larger than {MAX_BYTES // 1_000_000} MB")
        if at > file.size:
            raise BadFile(f"{title} is cut short")
        if header.type in EXTENSIONS:
            if header.size > LONGEST:
                raise BadFile(f"{title} holds a name that is longer than a megabyte")
            renamed = _long_name(header.type, file.read(start, header.size)) or renamed
            continue
        name, renamed = (renamed or header.name).removeprefix("./"), None
        if header.type in FILES:
            yield Member(name, start, header.size, data[BLOCK : BLOCK + header.size])
        elif header.type == tarfile.DIRTYPE:
            yield Member(f"{name.rstrip('/') or '.'}/", start, 0, b"")
        else:
            raise BadFile(f"{title} holds {show_path(name)}, which is a link or a device")
    if not block:
        raise BadFile(f"{title} is cut short")


def _plain_header(block: bytes) -> _Header | None:
    """What nearly every header is: a file with a short name, read in a tenth of the time that ``tarfile`` takes."""
    if len(block) < BLOCK or block[156:157] != tarfile.REGTYPE or block[257:262] != b"ustar" or block[345]:
        return None
    size, checksum = block[124:136].rstrip(b" \0"), block[148:156].strip(b" \0")
    if not (size.isdigit() and checksum.isdigit()):
        return None
    name = block[:100].partition(b"\0")[0].decode("utf-8", "surrogateescape")
    try:
        sound = int(checksum, 8) == 256 + sum(block[:148]) + sum(block[156:])
        return _Header(name, int(size, 8), tarfile.REGTYPE) if sound and not name.endswith("/") else None
    except ValueError:  # an 8 or a 9
        return None


def _header(block: bytes, title: str) -> _Header:
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.TarError, ValueError):
        raise BadFile(f"{title} is not a tar archive, or is damaged") from None
    return _Header(info.name, info.size, info.type)


def _long_name(kind: bytes, data: bytes) -> str | None:
    """The name an extension header gives to the member after it: GNU's is the data, POSIX's is a ``path`` record."""
    if kind == tarfile.GNUTYPE_LONGNAME:
        return data.rstrip(b"\0").decode("utf-8", "surrogateescape")
    while kind == tarfile.XHDTYPE and data:
        length = data.partition(b" ")[0]
        if not length.isdigit() or not len(length) < int(length) <= len(data):
            return None
        key, _, value = data[len(length) + 1 : int(length) - 1].partition(b"=")
        if key == b"path":
            return value.decode("utf-8", "surrogateescape")
        data = data[int(length) :]
    return None
