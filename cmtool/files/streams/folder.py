"""A folder of pictures; ``dataset.json`` has the labels, ``{"labels": [["00000000.png", 3], ...]}``, as EDM does."""

import json
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from cmtool.errors import BadFile, MissingInput
from cmtool.files.atomic import make_folder, write_bytes
from cmtool.files.streams.item import WORKERS, Item
from cmtool.pictures import SUFFIXES, encode

__all__ = ["LABELS", "FolderWriter", "labels_in", "read"]

LABELS = "dataset.json"


def read(root: Path) -> Iterator[Item]:
    """Every picture below ``root`` in the order of its path; hidden files and other kinds are passed over."""
    labels = _read_labels(root / LABELS)
    names = sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.suffix.lower() in SUFFIXES)
    names = [name for name in names if not any(part.startswith(".") for part in name.split("/"))]
    if not names:
        raise MissingInput(f"there are no pictures in {root}", f"suffixes that are read: {', '.join(SUFFIXES)}")
    return (Item(str(root / name), root / name, labels.get(name)) for name in names)


def _read_labels(path: Path) -> dict[str, int]:
    return labels_in(path.read_bytes(), str(path)) if path.is_file() else {}


def labels_in(data: bytes, name: str) -> dict[str, int]:
    """The labels of a ``dataset.json`` by file name; BadFile when it is none."""
    try:
        pairs = json.loads(data)["labels"] or []
        return {file: label for file, label in pairs if type(label) is int}
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise BadFile(f"{name} holds no labels", 'what is read: {"labels": [["name.png", 3], ...]}') from error


class FolderWriter:
    """``{seed:08d}.png`` in a folder, encoded and written by a few threads, each file whole or not there."""

    def __init__(self, root: Path, labelled: bool):
        self.root, self.labels = make_folder(root), _read_labels(root / LABELS) if labelled else None
        self.pool = ThreadPoolExecutor(WORKERS)
        self.pending: list[Future[None]] = []

    def __enter__(self) -> "FolderWriter":
        return self

    def write(self, seeds: Any, images: Any, labels: Any = None) -> None:
        """Take a batch, and wait for the one before it."""
        self._settle()
        names = [f"{int(seed):08d}.png" for seed in seeds]
        for name, image in zip(names, np.asarray(images), strict=True):
            self.pending.append(self.pool.submit(self._save, name, image))
        if self.labels is not None:
            self.labels.update(zip(names, np.asarray(labels).tolist(), strict=True))

    def __exit__(self, *_: object) -> None:
        # also after an error or Ctrl-C: what was generated is kept
        try:
            self._settle()
            if self.labels is not None:
                text = json.dumps({"labels": sorted(self.labels.items())})
                write_bytes(self.root / LABELS, text.encode())
        finally:
            self.pool.shutdown(cancel_futures=True)

    def _settle(self) -> None:
        pending, self.pending = self.pending, []
        for job in pending:
            job.result()

    def _save(self, name: str, image: np.ndarray) -> None:
        write_bytes(self.root / name, encode(image, level=1), durable=False)
