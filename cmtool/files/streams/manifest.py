"""The manifest: a line of JSON for each image, by which a killed run knows what it has and whose it is.

While a run writes, its lines are in a journal: first the image, then its line, so that a line without an image cannot
be. A file that appears whole (``out.tar``) has its manifest beside it, ``out.tar.manifest.jsonl``.
"""

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, BinaryIO

from cmtool.errors import BadFile, Hint, Setting, UsageError, WriteFailed
from cmtool.files.atomic import holds_open_files, make_folder, open_update, take_lock, write_file
from cmtool.files.output_check import ANOTHER_PLACE
from cmtool.text_files import dump_json

__all__ = [
    "MANIFEST",
    "ImageSettings",
    "agreement",
    "beside",
    "deleted_entry",
    "describe_found",
    "entries",
    "hold_manifest",
    "is_complete",
]

MANIFEST = "manifest.jsonl"
LONGEST = 1 << 20  # bytes of a line
BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class ImageSettings:
    """The images a run is to write: their ``seeds``, ``labels`` (or None), ``shape``, and ``facts`` that all share.

    ``classes`` are the names of the labels, where they have any.
    Two images are the same where their lines are: ``facts`` must tell the model and all that decides the pixels.
    """

    seeds: Sequence[int]
    labels: Sequence[int] | None
    shape: tuple[int, ...]
    facts: Mapping[str, Any]
    classes: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.seeds)

    def label(self, i: int) -> int | None:
        return None if self.labels is None else int(self.labels[i])

    def line(self, seed: int, label: int | None) -> str:
        return dump_json({"seed": seed, "class": label, **self.facts}) + "\n"

    def lines(self) -> Iterator[str]:
        return (self.line(seed, self.label(i)) for i, seed in enumerate(self.seeds))

    def strangers(self, found: Iterable[Mapping[str, Any]]) -> list[int]:
        """The seeds of images that share a place with these and were made by another model or with other settings."""
        facts = self.plain
        others = [one["seed"] for one in found if one.keys() != {"seed"} and describe_found(one) != facts]
        seeds = set(self.seeds) if others else ()
        return [seed for seed in others if seed not in seeds]

    @property
    def plain(self) -> dict[str, Any]:
        """The facts as they are read back."""
        return json.loads(dump_json(self.facts))

    def cut(self, shard: int, shards: int) -> "ImageSettings":
        """Part ``shard`` (from 1) of ``shards``: neighbours, and numbers that differ by one at most."""
        n = len(self)
        part = slice((shard - 1) * n // shards, shard * n // shards)
        labels = None if self.labels is None else self.labels[part]
        return ImageSettings(self.seeds[part], labels, self.shape, self.facts, self.classes)


def beside(path: Path, word: str) -> Path:
    """``out.tar.WORD`` of ``out.tar``."""
    return path.with_name(f"{path.name}.{word}")


def agreement(manifest: Path, wanted: ImageSettings) -> int:
    """How many images of ``wanted``, from the first on, are the manifest's first; 0 when there is none."""
    try:
        pairs = zip(_lines(manifest, torn=False), wanted.lines(), strict=False)
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1].encode(), pairs))
    except FileNotFoundError:
        return 0


def is_complete(path: Path, wanted: ImageSettings) -> bool:
    """Whether the finished file ``path`` holds just these images."""
    manifest = beside(path, MANIFEST)
    if not path.is_file() or not manifest.is_file():
        return False
    return sum(1 for _ in _lines(manifest)) == len(wanted) == agreement(manifest, wanted)


def describe_found(found: Mapping[str, Any]) -> dict[str, Any]:
    """What a line says beside the seed and the class."""
    return {key: value for key, value in found.items() if key not in ("seed", "class")}


def deleted_entry(seed: int) -> str:
    """The line of a seed under whose name there may be anything."""
    return dump_json({"seed": seed}) + "\n"


def entries(path: Path, strict: bool = False) -> Iterator[tuple[str, dict[str, Any]]]:
    """The lines of a manifest or journal, and what each says; those that say nothing of an image are passed over.

    What a kill has torn is such a line of a journal. ``strict`` is for a finished manifest, which was written whole:
    BadFile for a line that is none of ours. Nothing where there is no file.
    """
    with contextlib.suppress(FileNotFoundError):
        for number, line in enumerate(_lines(path, strict), 1):
            found = _parse(line)
            if found is not None:
                yield line.decode(), found
            elif strict and line.strip():
                raise BadFile(
                    f"line {number} of {path} is no line of a manifest of cmtool",
                    ANOTHER_PLACE,
                )


def _lines(path: Path, torn: bool = True) -> Iterator[bytes]:
    """The lines as they were written, whatever an editor made of their ends; with a ``torn`` one at the end or not."""
    with path.open("rb") as file:
        if file.read(len(BOM)) != BOM:
            file.seek(0)
        while line := file.readline(LONGEST):
            if torn or line.endswith(b"\n"):
                yield line.rstrip(b"\r\n") + b"\n"


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line.decode())
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or not _counts(found.get("seed")):
        return None
    label = found.get("class", -1)
    return found if found.keys() == {"seed"} or label is None or _counts(label) else None


def _counts(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 63


@contextlib.contextmanager
def hold_manifest(path: Path, then: Callable[[], None] = lambda: None) -> Iterator[BinaryIO]:
    """The file, made if need be, with this process as its only writer; the system lets go when the process dies.

    ``then`` is called when it has been let go. UsageError when another process holds it.
    """
    make_folder(path.parent)
    file, release = _hold_beside(path) if holds_open_files() else (_hold(path), lambda: None)
    try:
        yield file
    finally:
        with contextlib.suppress(OSError):  # all was flushed, or a full disk refuses again what the buffer still holds
            file.close()
        release()
        then()


def _hold(path: Path) -> BinaryIO:
    while True:
        file = _open_locked(path)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()  # its last holder has just renamed it


def _hold_beside(path: Path) -> tuple[BinaryIO, Callable[[], None]]:
    """The file, which can be read, closed and renamed while a lock beside it is held, and how that is let go."""
    place = path.with_name(f".{path.name}.lock")
    lock = _open_locked(place, path)

    def release() -> None:
        lock.close()
        with contextlib.suppress(OSError):  # the next holder has opened it already
            place.unlink()

    try:
        with write_file(path):
            return open_update(path), release
    except BaseException:
        release()
        raise


def _open_locked(path: Path, named: Path | None = None) -> BinaryIO:
    """The open file with its lock taken; UsageError about it, or the file that it stands for, when another has that."""
    named = named or path
    with write_file(named):
        file = open_update(path)
    try:
        take_lock(file)
    except BlockingIOError:
        file.close()
        hint = Hint("wait until it has ended, or give each process its {}", Setting("shard"))
        raise UsageError(f"another process is writing {named}", hint) from None
    except OSError as error:
        file.close()
        raise WriteFailed(f"cannot lock {named}: {error.strerror}", "choose another place") from error
    return file
