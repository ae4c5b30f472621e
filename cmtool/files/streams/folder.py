"""A folder of pictures; ``dataset.json`` has the labels, ``{"labels": [["00000000.png", 3], ...]}``, as EDM does."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from cmtool.errors import BadFile, MissingInput, check_regular
from cmtool.files.atomic import make_folder, write_bytes
from cmtool.files.streams.item import Item
from cmtool.files.streams.labels import choose_file, labels_of, whole_label
from cmtool.files.streams.names import SkippedFiles, describe_skipped, is_picture
from cmtool.files.streams.sink import stem
from cmtool.label_files import LABELS
from cmtool.pictures import MAX_BYTES, SUFFIXES, encode
from cmtool.text_files import dump_json
from cmtool.user_paths import files_below

__all__ = ["EACH", "LABELS", "MORE", "FolderSink", "keys", "labels_in", "labels_out", "read", "read_labels"]

MORE, EACH = 1 << 20, 512  # bytes that it may have, and more for each picture


def read(root: Path, passed: SkippedFiles) -> Iterator[Item]:
    """Every picture below ``root`` in the order of its path; hidden files and other kinds are passed over."""
    names, files = _pictures(root, passed)
    labels: list[int | None] = [None] * len(names)
    if file := choose_file(files, names, str(root), passed):
        labels = labels_of(read_labels(root / file, len(names)), names, file, str(root / file), passed)
    return (Item(str(root / name), root / name, label, name) for name, label in zip(names, labels, strict=True))


def keys(root: Path, passed: SkippedFiles | None = None) -> list[str]:
    """The paths of the pictures below ``root``, in their order; MissingInput where there are none."""
    return _pictures(root, SkippedFiles() if passed is None else passed)[0]


def _pictures(root: Path, passed: SkippedFiles) -> tuple[list[str], list[str]]:
    """The paths of the pictures, and of all files."""
    files = files_below(root).files
    names = [name for name in files if is_picture(name, passed)]
    if not names:
        left = f"; {describe_skipped(passed)}" if passed else ""
        raise MissingInput(f"there are no pictures in {root}{left}", f"suffixes that are read: {', '.join(SUFFIXES)}")
    for name in names:
        check_regular(root / name)
    return names, files


def read_labels(path: Path, pictures: int | None = None) -> dict[str, int]:
    """The labels of the ``dataset.json`` at ``path``, if there is one; of so many ``pictures``."""
    if not path.is_file():
        return {}
    most = MORE + EACH * pictures if pictures is not None else MAX_BYTES
    with path.open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise BadFile(f"{path} is larger than labels of {pictures} pictures can be", "take it out of the folder")
    return labels_in(data, str(path))


def labels_in(data: bytes, name: str) -> dict[str, int]:
    """The labels of a ``dataset.json`` by file name; BadFile when it is none. Vectors of numbers are passed over."""
    try:
        pairs = json.loads(data)["labels"] or []
        known = {file: label for file, label in pairs if label is not None and not isinstance(label, list)}
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise BadFile(f"{name} holds no labels", 'what is read: {"labels": [["name.png", 3], ...]}') from error
    return {file: whole_label(label, name) for file, label in known.items()}


def labels_out(labels: Mapping[str, int | None] | None, classes: Sequence[str] = ()) -> bytes:
    """A ``dataset.json`` of labels by file name, or of none; ``class_names`` is a key that EDM passes over."""
    names = {"class_names": list(classes)} if labels is not None and classes else {}
    return dump_json({"labels": None if labels is None else sorted(labels.items()), **names}).encode()


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
