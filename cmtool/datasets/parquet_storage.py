"""Parquet files with a column of pictures, as the ``datasets`` library of Hugging Face writes them.

Source: the documentation of that library (features ``Image`` and ``ClassLabel``, kept as JSON under the key
``huggingface`` of the schema): a picture is a struct of its file, ``bytes``, and its ``path``.
"""

import json
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cmtool.datasets.archive_names import whole
from cmtool.datasets.per_process import PerProcess
from cmtool.datasets.positional import PositionalFile
from cmtool.datasets.raw_images import Numbers
from cmtool.datasets.storage import Choice, fingerprint, list_some, show_path
from cmtool.errors import BadFile, Hint, MissingAsset, MissingInput, Setting, UsageError, unknown_name
from cmtool.pictures import Size, decode, size_from_start, size_of_file

__all__ = ["ParquetStorage", "is_parquet", "parquet_within"]

IMAGES = ("image", "img", "picture", "jpg", "png", "webp")
LABELS = ("label", "labels", "fine_label", "class", "cls")
CACHE, LARGEST = 512 << 20, 2 << 30  # bytes of the row groups that are kept, and of one
LOOKED = 1 << 30  # bytes of pictures up to which all are looked at before training
PROBES = 16  # row groups that are looked at of larger sets
SPLITS = {"train": ("train",), "test": ("test", "validation", "valid", "val")}


def is_parquet(path: Path, start: bytes) -> bool:
    """Whether a file is called ``.parquet`` or begins as one."""
    return start[:4] == b"PAR1" or path.name.lower().endswith(".parquet")


def parquet_within(root: Path, names: Sequence[str]) -> Sequence[Path]:
    """The files of a folder, or of the folder ``data`` in it, as repositories of data sets have them."""
    here = [root / name for name in names if name.lower().endswith(".parquet")]
    inner = root / "data"
    if here or "data" not in names or not inner.is_dir():
        return here
    return sorted(path for path in inner.iterdir() if path.name.lower().endswith(".parquet"))


class ParquetStorage:
    """The pictures of one or several files, in the order of their rows.

    A row group is read as a whole, and some are kept; pictures that are asked for in order are read once.
    MissingAsset without pyarrow; UsageError for columns that are not there or cannot be told apart.
    """

    what, rows, text = "table", None, None
    labels_in, unused, empty = "", (), ()

    def __init__(self, paths: Sequence[Path], name: str, choice: Choice):
        self.name = show_path(name)
        self.paths = _choose(paths, self.name, choice.split)
        self._reader = PerProcess(partial(_Reader, tuple(self.paths)))
        reader = self._reader.get()
        columns = _Columns(reader.schema(0), choice, self.name)
        self.image = columns.image
        places = [(f, g, rows) for f in range(len(self.paths)) for g, rows in enumerate(reader.groups(f, self.image))]
        self._groups, self._ends = [(f, g) for f, g, _ in places], np.cumsum([n for *_, n in places] or [0]).tolist()
        if not self._ends[-1]:
            raise BadFile(f"there are no images in {self.name}")
        self.names = Numbers(self._ends[-1])
        self.labels, self.class_names = columns.labels(
            [reader.column(f, columns.label) for f in range(len(self.paths))]
        )
        files = [PositionalFile(path, kept=False) for path in self.paths]
        self.marks = {path.name: fingerprint(f, 0, f.size) for path, f in zip(self.paths, files, strict=True)}
        self._whole = sum(file.size for file in files) <= LOOKED
        looked = "" if self._whole else f"of {len(self._groups):,} row groups {PROBES} were looked at"
        self.remark = looked or None

    def call(self, index: int) -> str:
        which = bisect_right(self._ends, index)
        return f"{show_path(str(self.paths[self._groups[which][0]]))}:{index}"

    def size(self, index: int) -> Size:
        data = self._value(index)
        return size_from_start(data) or size_of_file(data, self.call(index))

    def sizes(self) -> Collection[Size]:
        step = 1 if self._whole else max(1, len(self._groups) // PROBES)
        begins = [0, *self._ends[:-1]]
        spans = [range(*pair) for pair in zip(begins, self._ends, strict=True)]
        return {self.size(i) for span in spans[::step] for i in span}

    def pixels(self, index: int) -> np.ndarray:
        return decode(self._value(index), self.call(index))

    def _value(self, index: int) -> bytes:
        which = bisect_right(self._ends, index)
        row = index - (self._ends[which - 1] if which else 0)
        value = self._reader.get().group(*self._groups[which], self.image)[row].as_py()
        if value is None:
            raise BadFile(f"{self.call(index)} has no image, or only the path of one elsewhere")
        return value


class _Reader:
    """The open files of a process, and the row groups that were read last."""

    def __init__(self, paths: Sequence[Path]):
        try:
            import pyarrow.parquet
        except ImportError:
            raise MissingAsset(
                f"{show_path(str(paths[0]))} is read with pyarrow, which is not installed",
                "pip install 'cmtool[parquet]'",
            ) from None
        self.paths, self.lock, self.kept = paths, threading.Lock(), OrderedDict[tuple[int, int], Any]()
        self.files = []
        for path in paths:
            with whole(path, "a Parquet file"):
                self.files.append(pyarrow.parquet.ParquetFile(path, memory_map=True, pre_buffer=False))

    def schema(self, file: int) -> Any:
        return self.files[file].schema_arrow

    def groups(self, file: int, image: str) -> list[int]:
        """The rows of each group; BadFile where the column is not there, or a group is too large to be read."""
        metadata, title = self.files[file].metadata, show_path(str(self.paths[file]))
        if image not in [metadata.schema.column(k).path for k in range(metadata.num_columns)]:
            raise BadFile(f"{title} has no column {image}, unlike the files before it")
        found = [metadata.row_group(g) for g in range(metadata.num_row_groups)]
        if any(group.total_byte_size > LARGEST for group in found):
            raise BadFile(
                f"{title} has a row group of more than {LARGEST >> 30} GB", "write it with fewer rows in a group"
            )
        return [group.num_rows for group in found]

    def column(self, file: int, name: str | None) -> Any:
        """A whole column of a file."""
        if name is None:
            return None
        with whole(self.paths[file], "a Parquet file"), self.lock:
            return self.files[file].read(columns=[name], use_threads=False).column(0)

    def group(self, file: int, group: int, image: str) -> Any:
        """The bytes of the pictures of a row group."""
        with self.lock:
            key = (file, group)
            if key not in self.kept:
                with whole(self.paths[file], "a Parquet file"):
                    table = self.files[file].read_row_group(group, columns=[image], use_threads=False)
                    column = table.column(0).combine_chunks() if table.num_rows else table.column(0)
                    self.kept[key] = column.field("bytes") if image.endswith(".bytes") else column
                    self._drop()
            self.kept.move_to_end(key)
            return self.kept[key]

    def _drop(self) -> None:
        """Keep the groups that were used last; a training run asks for rows of all of them in each batch."""
        size = sum(one.nbytes for one in self.kept.values())
        while len(self.kept) > 1 and size > CACHE:
            size -= self.kept.popitem(last=False)[1].nbytes


class _Columns:
    """Which column holds the pictures, and which the labels; ``image`` is the path of the bytes."""

    def __init__(self, schema: Any, choice: Choice, title: str):
        self.title, features = title, _features(schema.metadata)
        fields = {field.name: field for field in schema}
        pictures = {name: path for name, field in fields.items() if (path := _bytes_of(field))}
        said = [name for name, feature in features.items() if feature.get("_type") == "Image" and name in pictures]
        self.image = pictures[
            _choose_column("image", choice.image_column, said or list(pictures), IMAGES, pictures, title)
        ]
        classes = [
            name for name, feature in features.items() if feature.get("_type") == "ClassLabel" and name in fields
        ]
        able = [name for name in classes or fields if _may_be_labels(fields[name].type)]
        usual = next((name for name in (*LABELS, *classes) if name in able), None)
        self.label = choice.label_column or usual
        if self.label is not None and self.label not in fields:
            raise unknown_name(f"column of {title}", self.label, fields)
        self.names = features.get(self.label or "", {}).get("names")

    def labels(self, columns: Sequence[Any]) -> tuple[Sequence[int | None], Mapping[int, str]]:
        """The label of each row, None for null and -1, and the names of the classes."""
        values = [value for column in columns if column is not None for value in column.to_pylist()]
        if values and all(isinstance(value, str | None) for value in values):
            names = sorted({value for value in values if value is not None})
            numbers = {name: k for k, name in enumerate(names)}
            return [None if value is None else numbers[value] for value in values], dict(enumerate(names))
        if not all(isinstance(value, int | None) for value in values):
            raise BadFile(
                f"the column {show_path(str(self.label))} of {self.title} holds no labels",
                Hint("choose another column: {}", Setting("data.label_column")),
            )
        found = [None if value == -1 or value is None else int(value) for value in values]
        names = dict(enumerate(self.names)) if isinstance(self.names, list) else {}
        known = {k: name for k, name in names.items() if isinstance(name, str)}
        return (found, known) if any(label is not None for label in found) else ((), {})


def _choose_column(
    what: str, wanted: str | None, found: Sequence[str], usual: Sequence[str], known: Mapping[str, str], title: str
) -> str:
    if wanted is not None:
        if wanted not in known:
            raise unknown_name(f"column of {what}s in {title}", wanted, known)
        return wanted
    if not found:
        raise BadFile(f"{title} has no column of {what}s", "a column holds the bytes of files, or structs of them")
    chosen = next((name for name in usual if name in found), found[0] if len(found) == 1 else None)
    if chosen is None:
        raise UsageError(
            f"{title} has several columns of {what}s: {list_some(found)}",
            Hint("choose one: {}", Setting(f"data.{what}_column", found[0])),
        )
    return chosen


def _bytes_of(field: Any) -> str | None:
    """The path of the bytes of pictures in a column, or None where it has none."""
    import pyarrow.types as types

    if types.is_binary(field.type) or types.is_large_binary(field.type):
        return field.name
    inner = (
        field.type.field("bytes") if types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0 else None
    )
    return f"{field.name}.bytes" if inner is not None and _bytes_of(inner) else None


def _may_be_labels(kind: Any) -> bool:
    import pyarrow.types as types

    return types.is_integer(kind) or types.is_string(kind) or types.is_large_string(kind) or types.is_dictionary(kind)


def _features(metadata: Mapping[bytes, bytes] | None) -> Mapping[str, Mapping[str, Any]]:
    """What the library says of the columns; nothing where it says nothing that can be read."""
    try:
        found = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError, RecursionError):
        return {}
    return {name: said for name, said in found.items() if isinstance(said, dict)} if isinstance(found, dict) else {}


def _choose(paths: Sequence[Path], title: str, split: str | None) -> Sequence[Path]:
    """The files of a part, by the word before the first ``-`` or ``.`` of their names; all where none is meant."""
    parts = {
        part: [path for path in paths if path.name.replace(".", "-").split("-")[0].lower() in words]
        for part, words in SPLITS.items()
    }
    if split == "all" or (split is None and (len(paths) == 1 or not parts["train"])):
        return paths
    if not parts[split or "train"]:
        raise MissingInput(
            f"{title} holds no files of the part {split}", f"it holds: {list_some([p.name for p in paths])}"
        )
    return parts[split or "train"]
