"""CIFAR-10 and CIFAR-100 as they are published for Python: pickles in a folder or a ``.tar.gz``, never unpickled.

Source: Krizhevsky, Learning Multiple Layers of Features from Tiny Images (2009), and the description of the files on
the page that offers them: ``data`` uint8 [N, 3072], all red values first, and lists of labels.
"""

import gzip
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from posixpath import basename
from typing import BinaryIO

from cmtool.datasets.archive_names import whole
from cmtool.datasets.pickled import planar_images, read_table
from cmtool.datasets.raw_images import ArrayPlace, RawImages
from cmtool.datasets.storage import Choice, show_path
from cmtool.errors import BadFile, WriteFailed, unknown_name

__all__ = ["cifar_within", "is_cifar", "open_cifar"]

LARGEST, ALL = 1 << 28, 1 << 30  # bytes of a file in the archive, and of all that is unpacked of it


@dataclass(frozen=True)
class Edition:
    """What the files of one of the two are called: those of each part, the names of the classes, the labels."""

    name: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    meta: str
    labels: Mapping[str, str]  # the key of the labels, and that of their names

    def files(self, split: str) -> tuple[str, ...]:
        return {"train": self.train, "test": self.test}.get(split, (*self.train, *self.test))


TEN = Edition(
    "CIFAR-10",
    tuple(f"data_batch_{k}" for k in range(1, 6)),
    ("test_batch",),
    "batches.meta",
    {"labels": "label_names"},
)
HUNDRED = Edition(
    "CIFAR-100",
    ("train",),
    ("test",),
    "meta",
    {"fine_labels": "fine_label_names", "coarse_labels": "coarse_label_names"},
)


PUBLISHED = {name for edition in (TEN, HUNDRED) for name in (*edition.files("all"), edition.meta)}


def is_cifar(path: Path, start: bytes) -> bool:
    """Whether a file is an archive that may be one of the two."""
    return path.name.lower().endswith((".tar.gz", ".tgz"))


def cifar_within(root: Path, names: Sequence[str]) -> Sequence[Path]:
    """The folder itself, where it is that of an unpacked archive."""
    edition = _edition(names)
    return [root] if edition and all((root / name).is_file() for name in edition.files("all")) else ()


def open_cifar(path: Path, name: str, choice: Choice) -> ArrayPlace:
    """The images of one part, ``train`` unless ``choice`` says another, with labels and the names of the classes.

    ``choice.label_column`` is ``fine_labels`` or ``coarse_labels`` of CIFAR-100. BadFile where files are missing,
    damaged, or hold anything but numbers and texts.
    """
    title = show_path(str(path))
    if path.is_dir():
        return _open(path, title, name, choice)
    with tempfile.TemporaryDirectory(prefix="cmtool-") as folder:  # the reader of pickles wants files
        with whole(path, "a .tar.gz file"):
            _unpack(path, Path(folder), title)
        return _open(Path(folder), title, name, choice)


def _open(folder: Path, title: str, name: str, choice: Choice) -> ArrayPlace:
    edition, split = _edition([entry.name for entry in folder.iterdir()]), choice.split or "train"
    if edition is None:
        raise BadFile(f"{title} holds neither CIFAR-10 nor CIFAR-100", "other tar archives are read uncompressed")
    key = choice.label_column or next(iter(edition.labels))
    if key not in edition.labels:
        raise unknown_name(f"labels of {edition.name}", key, edition.labels)
    tables = {file: read_table(folder / file, f"{title}/{file}") for file in edition.files(split)}
    arrays = {file: planar_images(table.array("data"), table.title) for file, table in tables.items()}
    labels = [number for table in tables.values() for number in table.numbers(key)]
    images = RawImages(list(arrays.values()), title)
    if len(labels) != len(images):
        raise BadFile(f"{title} holds {len(images):,} images and {len(labels):,} labels")
    classes = read_table(folder / edition.meta, f"{title}/{edition.meta}").texts(edition.labels[key])
    marks = {file: zlib.crc32(array.tobytes()) for file, array in arrays.items()}
    return ArrayPlace(images, title, name, marks, labels, dict(enumerate(classes)), what=f"{edition.name} archive")


def _edition(names: Sequence[str]) -> Edition | None:
    return next((e for e in (TEN, HUNDRED) if {*e.train, *e.test, e.meta} <= set(names)), None)


def _unpack(path: Path, folder: Path, title: str) -> None:
    """Write the published files of an archive, and no others, to a folder; BadFile where they are too large."""
    left = ALL
    with gzip.open(path) as stream, tarfile.open(fileobj=_Bounded(stream, title), mode="r|") as archive:  # type: ignore[arg-type]
        for member in archive:
            name = basename(member.name)
            if not member.isreg() or name not in PUBLISHED:
                continue
            left -= member.size
            file = archive.extractfile(member)
            if file is None or min(left, LARGEST - member.size) < 0 or (folder / name).exists():
                raise BadFile(f"{title} holds {name} twice, or it is larger than that of CIFAR")
            try:
                with (folder / name).open("xb") as copy:
                    shutil.copyfileobj(file, copy)
            except OSError as error:
                if error.errno is None:  # gzip's own
                    raise
                raise WriteFailed(f"cannot unpack {title} in {folder}: {error.strerror}") from error


class _Bounded:
    """A stream that ends with an error after as many bytes as the published archives may have."""

    def __init__(self, stream: BinaryIO | gzip.GzipFile, title: str):
        self.stream, self.title, self.left = stream, title, ALL

    def read(self, size: int) -> bytes:
        data = self.stream.read(size)
        self.left -= len(data)
        if self.left < 0:
            raise BadFile(f"{self.title} is larger than CIFAR", "other tar archives are read uncompressed")
        return data
