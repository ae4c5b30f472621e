"""The zip of ``torch.save`` opened without making anything of it. It runs in the ``sandbox``."""

import io
import mmap
import zipfile
from typing import BinaryIO

from cmtool.files.safe_pickle.unpickler import Refusal, Unpickler

__all__ = ["MAGIC", "open_archive", "open_zip"]

MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the number at the beginning of files before the zip
FOLDER = 0x10  # an attribute of zip entries: torch reads nothing of them, and hands out memory as it finds it
MOST = 1 << 24  # bytes of a pickle; those of the largest published networks have less than a thirtieth
TABLE = 1 << 21  # bytes of a table of contents, which is read as a whole
HEADER = 30  # bytes before the name of an entry


class Source(io.BufferedReader):
    """A file that hands out no more than ``most`` bytes at once."""

    most = TABLE

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(min(self.most, size) if size is not None and size >= 0 else self.most)
        if len(data) == self.most:
            raise zipfile.BadZipFile("its table of contents is too long")
        return data


def open_zip(file: BinaryIO) -> zipfile.ZipFile:
    """The zip, unless its table of contents is longer than that of any network; BadZipFile or ValueError."""
    source = Source(io.FileIO(file.fileno(), closefd=False))
    archive = zipfile.ZipFile(source)
    source.most = 1 << 40
    return archive


def open_archive(file: BinaryIO, memory: mmap.mmap) -> tuple[Unpickler, dict[str, tuple[int, int]]]:
    """An unpickler for its pickle, and the place and size of each entry, by its name without the folder around all.

    Refusal unless every entry is stored plainly, as large as it says, and what its checksum says.
    """
    archive = open_zip(file)
    entries = archive.infolist()
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise Refusal("it is compressed, which torch.save does not do")
    fits = sum(entry.file_size for entry in entries) <= len(memory)
    files = not any(entry.external_attr & FOLDER for entry in entries)
    if not (fits and files and archive.testzip() is None):
        raise Refusal("it is damaged: its contents do not match its checksums")
    found = {entry.filename.partition("/")[2]: place(memory, entry) for entry in entries}
    if len(found) != len(entries):
        raise Refusal("it has two entries of one name")
    start, size = found.get("data.pkl", (0, MOST + 1))
    if size > MOST:
        raise Refusal("it has no pickle of a network")
    if memory[slice_of(found.get("byteorder", (0, 0)))] == b"big":
        raise Refusal("it was written on a machine of the other byte order")
    return Unpickler(io.BytesIO(memory[start : start + size]), start), found


def slice_of(entry: tuple[int, int]) -> slice:
    return slice(entry[0], sum(entry))


def place(memory: mmap.mmap, entry: zipfile.ZipInfo) -> tuple[int, int]:
    """Where the bytes of an entry stand: behind its own header, whose name and extras have lengths of their own."""
    at = entry.header_offset
    name, extra = (int.from_bytes(memory[at + k : at + k + 2], "little") for k in (26, 28))
    return at + HEADER + name + extra, entry.file_size
