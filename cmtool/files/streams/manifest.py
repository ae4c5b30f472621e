"""The manifest: a line of JSON for each image, by which a killed run knows what it has and whose it is.

While a run writes, its lines are in a journal: first the image, then its line, so that a line without an image cannot
be. A file that appears whole (``out.tar``) has its manifest beside it, ``out.tar.manifest.jsonl``.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, BinaryIO

from cmtool.errors import UsageError, WriteFailed
from cmtool.files.atomic import make_folder, writing

__all__ = ["MANIFEST", "Wanted", "agreement", "beside", "held", "is_complete"]

MANIFEST = "manifest.jsonl"


@dataclass(frozen=True)
class Wanted:
    """The images a run is to write: their ``seeds``, ``labels`` (or None), ``shape``, and ``facts`` that all share.

    Two images are the same where their lines are: ``facts`` must tell the model and all that decides the pixels.
    """

    seeds: Sequence[int]
    labels: Sequence[int] | None
    shape: tuple[int, ...]
    facts: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.seeds)

    def label(self, i: int) -> int | None:
        return None if self.labels is None else int(self.labels[i])

    def line(self, seed: int, label: int | None) -> str:
        return json.dumps({"seed": seed, "class": label, **self.facts}) + "\n"

    def lines(self) -> Iterator[str]:
        return (self.line(seed, self.label(i)) for i, seed in enumerate(self.seeds))

    def cut(self, shard: int, shards: int) -> "Wanted":
        """Part ``shard`` (from 1) of ``shards``: neighbours, and numbers that differ by one at most."""
        n = len(self)
        part = slice((shard - 1) * n // shards, shard * n // shards)
        labels = None if self.labels is None else self.labels[part]
        return Wanted(self.seeds[part], labels, self.shape, self.facts)


def beside(path: Path, word: str) -> Path:
    """``out.tar.WORD`` of ``out.tar``."""
    return path.with_name(f"{path.name}.{word}")


def agreement(manifest: Path, wanted: Wanted) -> int:
    """How many images of ``wanted``, from the first on, are the manifest's first; 0 when there is none."""
    try:
        with manifest.open(encoding="utf-8") as file:
            return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(file, wanted.lines(), strict=False)))
    except (FileNotFoundError, UnicodeDecodeError):
        return 0


def is_complete(path: Path, wanted: Wanted) -> bool:
    """Whether the finished file ``path`` holds just these images."""
    manifest = beside(path, MANIFEST)
    if not path.is_file() or not manifest.is_file():
        return False
    with manifest.open("rb") as file:
        return sum(1 for _ in file) == len(wanted) == agreement(manifest, wanted)


@contextlib.contextmanager
def held(path: Path, then: Callable[[], None] = lambda: None) -> Iterator[BinaryIO]:
    """The file, made if need be, with this process as its only writer; the system lets go when the process dies.

    ``then`` is called when it has been let go. UsageError when another process holds it.
    """
    make_folder(path.parent)
    file = _lock(path)
    try:
        yield file
    finally:
        with contextlib.suppress(OSError):  # all was flushed, or a full disk refuses again what the buffer still holds
            file.close()
        then()


def _lock(path: Path) -> BinaryIO:
    while True:
        with writing(path):
            file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    return file
        except OSError as error:
            file.close()
            if isinstance(error, BlockingIOError):
                hint = "wait until it has ended, or give each process its --shard"
                raise UsageError(f"another process is writing {path}", hint) from None
            raise WriteFailed(f"cannot lock {path}: {error.strerror}", "choose another place") from error
        file.close()  # its last holder has just renamed it
