"""A folder of pictures; ``dataset.json`` has the labels, ``{"labels": [["00000000.png", 3], ...]}``, as EDM does."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from cmtool.errors import BadFile, MissingInput
from cmtool.files.atomic import make_folder, write_bytes
from cmtool.files.streams.item import Item
from cmtool.files.streams.sink import stem
from cmtool.pictures import SUFFIXES, encode

__all__ = ["LABELS", "FolderSink", "labels_in", "labels_out", "read", "read_labels"]

LABELS = "dataset.json"


def read(root: Path) -> Iterator[Item]:
    """Every picture below ``root`` in the order of its path; hidden files and other kinds are passed over."""
    labels = read_labels(root / LABELS)
    names = sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.suffix.lower() in SUFFIXES)
    names = [name for name in names if not any(part.startswith(".") for part in name.split("/"))]
    if not names:
        raise MissingInput(f"there are no pictures in {root}", f"suffixes that are read: {', '.join(SUFFIXES)}")
    return (Item(str(root / name), root / name, labels.get(name)) for name in names)


def read_labels(path: Path) -> dict[str, int]:
    """The labels of the ``dataset.json`` at ``path``, if there is one."""
    return labels_in(path.read_bytes(), str(path)) if path.is_file() else {}


def labels_in(data: bytes, name: str) -> dict[str, int]:
    """The labels of a ``dataset.json`` by file name; BadFile when it is none."""
    try:
        pairs = json.loads(data)["labels"] or []
        return {file: label for file, label in pairs if type(label) is int}
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise BadFile(f"{name} holds no labels", 'what is read: {"labels": [["name.png", 3], ...]}') from error


def labels_out(labels: Mapping[str, int | None] | None) -> bytes:
    """A ``dataset.json`` of labels by file name, or of none."""
    return json.dumps({"labels": None if labels is None else sorted(labels.items())}).encode()


class FolderSink:
    """``{seed:08d}.png`` in a folder, each file whole or not there, and ``dataset.json`` where there are labels."""

    def __init__(self, root: Path, labelled: bool):
        self.root, self.labels = make_folder(root), read_labels(root / LABELS) if labelled else None

    def begin(self) -> None:
        pass

    def prepare(self, seed: int, image: np.ndarray) -> bytes:
        """Encodes and writes the file at once, which a thread can do as well; there is nothing to add."""
        name = f"{stem(seed)}.png"
        write_bytes(self.root / name, encode(image, level=1), durable=False, place=self.root / f".{name}.part")
        return b""

    def add(self, seed: int, data: bytes, label: int | None) -> None:
        if self.labels is not None and label is not None:
            self.labels[f"{stem(seed)}.png"] = label

    def finish(self) -> None:
        if self.labels is not None:
            write_bytes(self.root / LABELS, labels_out(self.labels))
