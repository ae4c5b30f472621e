"""Pictures of one ``.tar`` or of many, as WebDataset keeps them: found by number, read in place."""

import json
import zlib
from bisect import bisect_right
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from posixpath import basename, commonprefix, dirname

import numpy as np

from cmtool.datasets.archive_names import ArchiveNames
from cmtool.datasets.positional import KEPT, Names, PositionalFile
from cmtool.datasets.storage import distinct_sizes, fingerprint, show_path
from cmtool.datasets.tar_index import Member, tar_members
from cmtool.errors import BadFile
from cmtool.pictures import Size, decode, size_from_start, size_of_file

__all__ = ["TarStorage"]

LOOKS = (64, 1 << 12, 1 << 16)  # bytes of a picture that mostly tell its size, of a PNG the first of them
JSON_KEYS, LARGEST_JSON = ("label", "cls"), 1 << 20
LABELLED = (".json", ".cls")
PROBES = 64  # pictures of a shard whose ends go into its mark


class TarStorage:
    """Tars that are not compressed; their order is that of the files, and in each that of the names.

    ``NAME.cls`` beside ``NAME.png`` has the label, else ``label`` or ``cls`` in ``NAME.json``. Names end at their first
    dot, so that ``NAME.cls`` also is that of ``NAME.seg.png``. Of a picture 12 bytes, its name and its label are kept.
    ``marks`` has a number for each picture of one tar, and for each of several tars.
    """

    class_names: Mapping[int, str] = {}
    rows = None

    def __init__(self, paths: Sequence[Path], name: str | None = None):
        self.what = "archive" if len(paths) == 1 else "shards"
        self.paths, self.name = list(paths), show_path(name or paths[0].name)
        self.files = [PositionalFile(path, kept=len(paths) <= KEPT) for path in paths]
        read = [_Shard(path, file) for path, file in zip(paths, self.files, strict=True)]
        self.top = _shared(read)
        self.names = Names(name.removeprefix(self.top) for shard in read for name in shard.members)
        self.starts = np.concatenate([shard.starts for shard in read])
        self.lengths = np.concatenate([shard.lengths for shard in read])
        self.ends = np.cumsum([len(shard.starts) for shard in read]).tolist()
        self.labels: Sequence[int | None] = ()
        if any(shard.labelled for shard in read):
            self.labels = [label for shard in read for label in shard.labels]
        alone = read[0] if len(read) == 1 else None
        self.labels_in, self.empty = (alone.labels_in, alone.empty) if alone else ("", [])
        self.text = alone.text if alone else None
        self.unused = alone.unused if alone else [name for shard in read for name in shard.lists]
        self.remark = next((shard.remark for shard in read if shard.remark), None)

    def call(self, index: int) -> str:
        return show_path(f"{self.paths[self._shard(index)]}:{self.top}{self.names[index]}")

    @property
    def marks(self) -> Mapping[str, int]:
        if len(self.files) == 1:
            places = zip(self.names, self.starts.tolist(), self.lengths.tolist(), strict=True)
            return {name: fingerprint(self.files[0], start, size) for name, start, size in places}
        begins = [0, *self.ends[:-1]]
        spans = zip(self.paths, map(range, begins, self.ends), strict=True)
        return {f"{path.parent.name}/{path.name}": self._mark(span) for path, span in spans}

    def size(self, index: int) -> Size:
        file, start, length = self.files[self._shard(index)], int(self.starts[index]), int(self.lengths[index])
        for most in LOOKS:
            if size := size_from_start(file.read(start, min(most, length))):
                return size
        return size_of_file(self._contents(index), self.call(index))

    def sizes(self) -> Collection[Size]:
        return distinct_sizes(self)

    def pixels(self, index: int) -> np.ndarray:
        return decode(self._contents(index), self.call(index))

    def _shard(self, index: int) -> int:
        return bisect_right(self.ends, index)

    def _contents(self, index: int) -> bytes:
        which, length = self._shard(index), int(self.lengths[index])
        data = self.files[which].read(int(self.starts[index]), length)
        if len(data) < length:
            raise BadFile(f"{show_path(str(self.paths[which]))} is cut short")
        return data

    def _mark(self, span: range) -> int:
        """Of a shard: the names and sizes of its pictures, and the ends of some."""
        which, rows = self._shard(span[0]), slice(span.start, span.stop)
        number = zlib.crc32("\n".join(self.names[rows]).encode("utf-8", "surrogatepass"))
        number = zlib.crc32(self.lengths[rows].tobytes(), number)
        for i in span[:: max(1, len(span) // PROBES)]:
            found = fingerprint(self.files[which], int(self.starts[i]), int(self.lengths[i]))
            number = zlib.crc32(found.to_bytes(4, "little"), number)
        return number


class _Shard:
    """What is kept of one tar: of its pictures the names, places and labels, and what else is of use."""

    def __init__(self, path: Path, file: PositionalFile):
        members = _Members(path, file)
        found = members.names
        self.members, self.top, self.remark = Names(iter(found.members)), found.top, found.remark
        self.starts = np.array([members.where[name].start for name in found.members], np.int64)
        self.lengths = np.array([members.where[name].size for name in found.members], np.uint32)
        said = members.labels()
        self.labels = [said.get(_key(name)) for name in found.members] if said else [None] * len(found.members)
        self.labelled = any(label is not None for label in self.labels)
        self.text = members.contents(found.list) if found.list else None
        self.labels_in, self.empty, self.unused = found.labels_in, found.empty, found.unused
        self.lists = [found.list] if found.list else []


class _Members:
    """Every member of a tar while it is indexed."""

    def __init__(self, path: Path, file: PositionalFile):
        self.path, self.file = path, file
        self.where: dict[str, Member] = {}
        files, folders = [], []
        for member in tar_members(path, file):
            if member.name.endswith("/"):
                folders.append(member.name)
                continue
            files.append(member.name)
            self.where[member.name] = member if member.name.endswith(LABELLED) else member._replace(begins=b"")
        self.names = ArchiveNames(path, files, folders)

    def contents(self, name: str) -> bytes:
        member = self.where[name]
        return member.begins if len(member.begins) == member.size else self.file.read(member.start, member.size)

    def labels(self) -> dict[str, int]:
        """The labels by key; those of ``.cls`` files come before those of ``.json`` files."""
        found = {}
        for ending, read in (("json", self._from_json), ("cls", self._from_cls)):
            for name, member in self.where.items():
                if name.endswith(ending) and basename(name).partition(".")[2] == ending:
                    label = read(name, member)
                    found |= {} if label is None else {_key(name): label}
        return found

    def _from_cls(self, name: str, member: Member) -> int:
        try:
            return int(member.begins[:32])
        except ValueError:
            raise BadFile(f"{show_path(f'{self.path}:{name}')} is not a label", "a .cls file holds a number") from None

    def _from_json(self, name: str, member: Member) -> int | None:
        """The label, where the document has one: it may be about other things."""
        try:
            document = json.loads(self.contents(name)) if member.size <= LARGEST_JSON else None
        except (ValueError, RecursionError):
            return None
        said = [document.get(key) for key in JSON_KEYS] if isinstance(document, dict) else []
        return next((label for label in said if type(label) is int), None)


def _key(name: str) -> str:
    return f"{dirname(name)}/{basename(name).partition('.')[0]}"


def _shared(shards: Sequence[_Shard]) -> str:
    """``photos/`` where the pictures of all lie in it."""
    top = commonprefix([shard.top for shard in shards])
    return top[: top.rfind("/") + 1]
