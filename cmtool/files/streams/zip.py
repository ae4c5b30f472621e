"""``.zip`` as EDM packs data: stored pictures ``00000/img00000000.png``, labels in ``dataset.json``.

Nothing is ever unpacked to the disk. Source of the layout: Karras et al. 2022, the data sets of arXiv 2206.00364.
"""

import contextlib
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from cmtool.errors import BadFile, report_damage
from cmtool.files.streams.folder import EACH, MORE, labels_in, labels_out
from cmtool.files.streams.item import Item
from cmtool.files.streams.labels import choose_file, labels_of
from cmtool.files.streams.names import SkippedFiles, check_kind, describe_skipped, is_picture, peek, safe_member
from cmtool.files.streams.sink import Called, stem
from cmtool.files.streams.zip_writer import ZipWriter, encoded
from cmtool.label_files import LABELS
from cmtool.pictures import MAX_BYTES, SUFFIXES, encode
from cmtool.user_paths import is_visible

__all__ = ["PLAIN", "ZipSink", "check_members", "keys", "open_zip", "read"]

UTF_8 = 0x800  # the flag of a name in UTF-8
PLAIN = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
PIECE = 1 << 12  # bytes at a time of the other ways to compress, since what these give has no bound


def read(path: Path, passed: SkippedFiles) -> Iterator[Item]:
    """The pictures in the order of their names, as EDM numbers them; BadFile when damaged or without any."""
    with open_zip(path, "a .zip file") as archive:
        members = _members(archive, path)
        found = _pictures(members, path, passed)
        check_members(archive, found.values())
        labels = _labels(archive, path, members, list(found), passed)
        for (name, info), label in zip(found.items(), labels, strict=True):
            yield Item(f"{path}:{name}", _contents(archive, info, path), label, name)


def keys(path: Path) -> list[str]:
    """The names of the pictures in their order, none of which is read."""
    with open_zip(path, "a .zip file") as archive:
        return list(_pictures(_members(archive, path), path, SkippedFiles()))


@contextlib.contextmanager
def open_zip(path: Path, what: str) -> Iterator[zipfile.ZipFile]:
    """The archive; whatever zipfile finds wrong with it becomes a BadFile that calls it ``what``."""
    with path.open("rb") as file, report_damage(path, f"is not {what}, or is damaged"):
        start = peek(file)
        if not start.startswith(b"PK") and not zipfile.is_zipfile(file):
            check_kind(start, str(path), what)
        with zipfile.ZipFile(file) as archive:
            yield archive


def check_members(archive: zipfile.ZipFile, read: Iterable[zipfile.ZipInfo] = ()) -> None:
    """Compare names in the list at the end with those beside the data: one that was damaged would not be missed.

    Those that will be ``read`` are compared then.
    """
    known = {info.filename for info in read}
    for info in archive.infolist():
        if info.filename not in known:
            archive.open(info).close()


def _members(archive: zipfile.ZipFile, path: Path) -> dict[str, zipfile.ZipInfo]:
    members = {safe_member(_name_of(info), str(path)): info for info in archive.infolist() if not info.is_dir()}
    if len(members) != sum(not info.is_dir() for info in archive.infolist()):
        raise BadFile(f"{path} holds a file twice")
    return members


def _pictures(members: dict[str, zipfile.ZipInfo], path: Path, passed: SkippedFiles) -> dict[str, zipfile.ZipInfo]:
    found = {name: members[name] for name in sorted(members) if is_picture(name, passed)}
    if not found:
        left = f"; {describe_skipped(passed)}" if passed else ""
        raise BadFile(f"there are no pictures in {path}{left}", f"suffixes that are read: {', '.join(SUFFIXES)}")
    return found


def _name_of(info: zipfile.ZipInfo) -> str:
    """The name in UTF-8, where it is that: many programs write it without the flag that says so."""
    if not info.flag_bits & UTF_8:
        with contextlib.suppress(UnicodeError):
            return info.filename.encode("cp437").decode("utf-8")
    return info.filename


def _labels(
    archive: zipfile.ZipFile, path: Path, members: dict[str, zipfile.ZipInfo], pictures: list[str], passed: SkippedFiles
) -> list[int | None]:
    file = choose_file([name for name in members if is_visible(name)], pictures, str(path), passed)
    if file is None:
        return [None] * len(pictures)
    said = labels_in(_contents(archive, members[file], path, MORE + EACH * len(pictures)), f"{path}:{file}")
    return labels_of(said, pictures, file, f"{path}:{file}", passed)


def _contents(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path, most: int = MAX_BYTES) -> bytes:
    """The data of a member, of which no more is unpacked than it may have, whatever it says of its size."""
    if info.file_size > most:
        size = f"{most // 1_000_000} MB" if most == MAX_BYTES else f"{most // 1000:,} kB"
        raise BadFile(f"{path} holds {info.filename}, which is larger than {size}")
    with archive.open(info) as file:
        if info.compress_type in PLAIN:
            return file.read(info.file_size + 1)  # without a number it unpacks all there is before it counts
        return b"".join(iter(lambda: file.read(PIECE), b""))


class ZipSink:
    """``{seed // 1000:05d}/img{seed:08d}.png``, as EDM's tools number them, and ``dataset.json`` at the end.

    ``classes`` are the names of the labels, to be kept in it as well.
    """

    def __init__(self, file: BinaryIO, shape: tuple[int, ...], n: int, labelled: bool, called: Called | None = None):
        self.file, self.archive, self.labelled, self.called = file, ZipWriter(file), labelled, called or _numbered
        self.labels: dict[str, int | None] = {}
        self.classes: Sequence[str] = ()

    def begin(self) -> None:
        pass

    def prepare(self, seed: int, image: np.ndarray) -> bytes:
        return encode(image, level=1)

    def add(self, seed: int, data: bytes, label: int | None) -> None:
        self.archive.put(self.called(seed), data)
        self.labels[self.called(seed)] = label

    def finish(self) -> None:
        """Labels, and the list of the members; ``"labels": null`` is how EDM says that there are none."""
        self.archive.put(LABELS, labels_out(self.labels if self.labelled else None, self.classes))
        self.archive.finish()

    def keep(self, seeds: Sequence[int], labels: Sequence[int | None]) -> int:
        entries, at = [], 0
        for seed, label, entry in zip(seeds, labels, self.archive.found(), strict=False):
            if entry.name != encoded(self.called(seed)):
                break
            entries.append(entry)
            at = entry.start + entry.size
            self.labels[self.called(seed)] = label
        self.archive.take_up(entries, at)
        return len(entries)

    def payloads(self) -> Iterator[bytes]:
        for entry in self.archive.found():
            self.file.seek(entry.start)
            if entry.name != LABELS.encode():
                yield self.file.read(entry.size)


def _numbered(seed: int) -> str:
    return f"{seed // 1000:05d}/img{stem(seed)}.png"
