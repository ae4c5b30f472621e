"""Pictures of a ``.zip`` (as EDM packs data) or ``.tar`` (a WebDataset), found by number; nothing is unpacked."""

import contextlib
import tarfile
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from posixpath import basename, dirname
from typing import BinaryIO

import numpy as np

from cmtool.datasets.storage import Fingerprints, fingerprint, is_picture, list_some, show_path, without_pictures
from cmtool.errors import BadFile, CmtoolError
from cmtool.label_files import LABELS, label_file, shared_folder
from cmtool.pictures import MAX_BYTES, SUFFIXES, Size, decode, kind_of, size_of_file, unread_kinds
from cmtool.user_paths import is_visible

__all__ = ["TarStorage", "ZipStorage", "whole"]

BLOCK = tarfile.BLOCKSIZE
EXTENSIONS = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
FILES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # others can grow without bounds while they are read
LONGEST = 1 << 20  # bytes of a name


class _Archive:
    """What both have: names below the folder that all members share, and where each is inside."""

    what = "archive"

    def __init__(self, path: Path, members: Sequence[str], folders: Sequence[str] = ()):
        self.path, self.name = path, show_path(path.name)
        if len(set(members)) != len(members):
            twice = Counter(members).most_common(1)[0][0]
            raise BadFile(f"{show_path(str(path))} holds {show_path(twice)} twice")
        pictures = sorted(name for name in members if is_picture(name))
        if not pictures:
            raise BadFile(
                f"there are no images in {show_path(str(path))}",
                f"it holds: {list_some(sorted(members))}; read are {', '.join(SUFFIXES)}",
            )
        visible = [name for name in members if is_visible(name)]
        self.top = shared_folder([name for name in visible if is_picture(name) or basename(name) == LABELS])
        self.members = pictures
        self.names = [name.removeprefix(self.top) for name in pictures]
        inside = [name.removeprefix(self.top) for name in visible if name.startswith(self.top)]
        labels, self.unused = label_file(inside, self.names)
        self.list, self.labels_in = (self.top + labels, dirname(labels)) if labels else (None, "")
        below = [name.removeprefix(self.top) for name in (*visible, *folders) if name.startswith(self.top)]
        first = {name.partition("/")[0] for name in below if "/" in name and is_visible(name)} - {"", "."}
        self.empty = without_pictures(sorted(first), self.names)
        self.remark = unread_kinds(visible)

    def call(self, index: int) -> str:
        return show_path(f"{self.path}:{self.members[index]}")


class ZipStorage(_Archive):
    """A zip whose members are stored or deflated; ``marks`` are its checksums."""

    def __init__(self, path: Path):
        with whole(path, "a .zip file"):
            self.archive = zipfile.ZipFile(path)
        every = self.archive.infolist()
        files, folders = ([info.filename for info in every if info.is_dir() == wanted] for wanted in (False, True))
        super().__init__(path, files, folders)
        self.marks = [self.archive.getinfo(name).CRC for name in self.members]
        self.labels: dict[int, int] = {}
        self.text = self._contents(self.list) if self.list else None

    def size(self, index: int) -> Size:
        with whole(self.path, "a .zip file"), self.archive.open(self._info(self.members[index])) as file:
            return size_of_file(file, self.call(index))  # type: ignore[arg-type]

    def pixels(self, index: int) -> np.ndarray:
        return decode(self._contents(self.members[index]), self.call(index))

    def _info(self, name: str) -> zipfile.ZipInfo:
        info = self.archive.getinfo(name)
        if info.file_size > MAX_BYTES:
            raise BadFile(f"{show_path(f'{self.path}:{name}')} is larger than {MAX_BYTES // 1_000_000} MB")
        if info.compress_type not in PACKED:
            raise BadFile(
                f"{show_path(f'{self.path}:{name}')} is packed in a way that is not read", "pack with deflate"
            )
        return info

    def _contents(self, name: str) -> bytes:
        with whole(self.path, "a .zip file"):
            return self.archive.read(self._info(name))


class TarStorage(_Archive):
    """A tar that is not compressed; ``NAME.cls`` beside ``NAME.png`` has the label, as WebDataset keeps it.

    Names end at their first dot, so that ``NAME.cls`` also is that of ``NAME.seg.png``. BadFile for links and devices,
    and for an archive that is cut short or damaged.
    """

    def __init__(self, path: Path):
        with path.open("rb") as file:
            places = list(_index(path, file))
        files, folders = ([name for name, _, _ in places if name.endswith("/") == wanted] for wanted in (False, True))
        super().__init__(path, files, folders)
        self.where = {name: (start, size) for name, start, size in places if not name.endswith("/")}
        self.marks = Fingerprints(len(self.members), self._mark)
        classes = {_key(name): self._label(name) for name in self.where if basename(name).partition(".")[2] == "cls"}
        self.labels = {i: classes[_key(name)] for i, name in enumerate(self.members) if _key(name) in classes}
        self.text = self._contents(self.list) if self.list else None

    def size(self, index: int) -> Size:
        return size_of_file(self._contents(self.members[index]), self.call(index))

    def pixels(self, index: int) -> np.ndarray:
        return decode(self._contents(self.members[index]), self.call(index))

    def _contents(self, name: str) -> bytes:
        start, size = self.where[name]
        with self.path.open("rb") as file:
            file.seek(start)
            data = file.read(size)
        if len(data) < size:
            raise BadFile(f"{show_path(str(self.path))} is cut short")
        return data

    def _mark(self, index: int) -> int:
        with self.path.open("rb") as file:
            return fingerprint(file, *self.where[self.members[index]])

    def _label(self, name: str) -> int:
        try:
            return int(self._contents(name)[:32])
        except ValueError:
            raise BadFile(f"{show_path(f'{self.path}:{name}')} is not a label", "a .cls file holds a number") from None


def _index(path: Path, file: BinaryIO) -> Iterator[tuple[str, int, int]]:
    """Name, start and size of every regular file of a tar, and of every folder, whose name ends with ``/``."""
    title, renamed, at, end = show_path(str(path)), None, 0, path.stat().st_size
    while any(block := _at(file, at, BLOCK)):
        if at == 0 and (kind := kind_of(block)):
            raise BadFile(f"{title} is a {kind} and no tar", "uncompress it first")
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except (tarfile.TarError, ValueError):
            raise BadFile(f"{title} is not a tar archive, or is damaged") from None
        start, at = at + BLOCK, at + BLOCK + -(-info.size // BLOCK) * BLOCK
        if not 0 <= info.size <= MAX_BYTES:
            raise BadFile(f"{title} holds a file that is larger than {MAX_BYTES // 1_000_000} MB")
        if at > end:
            raise BadFile(f"{title} is cut short")
        if info.type in EXTENSIONS:
            if info.size > LONGEST:
                raise BadFile(f"{title} holds a name that is longer than a megabyte")
            renamed = _long_name(info.type, _at(file, start, info.size)) or renamed
            continue
        name, renamed = (renamed or info.name).removeprefix("./"), None
        if info.type in FILES:
            yield name, start, info.size
        elif info.isdir():
            yield f"{name.rstrip('/') or '.'}/", start, 0
        else:
            raise BadFile(f"{title} holds {show_path(name)}, which is a link or a device")
    if not block:
        raise BadFile(f"{title} is cut short")


def _at(file: BinaryIO, start: int, size: int) -> bytes:
    file.seek(start)
    return file.read(size)


@contextlib.contextmanager
def whole(path: Path, what: str) -> Iterator[None]:
    """Whatever the readers of Python and numpy find wrong becomes a BadFile that calls the file ``what``."""
    try:
        yield
    except (CmtoolError, MemoryError):
        raise
    except Exception as error:  # what they raise on damaged files; no closed list exists
        reason = show_path(" ".join(str(error).split())[:200])
        sentence = f"{show_path(str(path))} is not {what}, or is damaged"
        raise BadFile(f"{sentence}: {reason}" if reason else sentence) from error


def _key(name: str) -> str:
    return f"{dirname(name)}/{basename(name).partition('.')[0]}"


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
