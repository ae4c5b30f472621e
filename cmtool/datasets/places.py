"""What a path of images is: the table of everything that is read, and the one function that opens it."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from cmtool.data_paths import SUFFIXES, expand_paths, has_suffix, is_list
from cmtool.datasets.array_storage import open_arrays
from cmtool.datasets.cifar_storage import cifar_within, is_cifar, open_cifar
from cmtool.datasets.idx_storage import idx_within, is_idx, open_idx
from cmtool.datasets.imagenet_storage import imagenet_within, is_imagenet, open_imagenet
from cmtool.datasets.lmdb_storage import LmdbStorage, is_lmdb, lmdb_within
from cmtool.datasets.parquet_storage import ParquetStorage, is_parquet, parquet_within
from cmtool.datasets.storage import Choice, FolderStorage, ImageStorage, list_some, show_path
from cmtool.datasets.tar_storage import TarStorage
from cmtool.datasets.zip_storage import ZipStorage
from cmtool.errors import BadFile, Hint, MissingInput, Setting, UsageError, closest
from cmtool.pictures import kind_of
from cmtool.user_paths import expand_home, is_visible

__all__ = ["KINDS", "Kind", "is_plain_folder", "open_storage"]

Within = Callable[[Path, Sequence[str]], Sequence[Path]]
START = 64  # bytes


@dataclass(frozen=True)
class Kind:
    """A way to keep images: how it is recognised and opened, and which fields of ``Choice`` it knows.

    ``open`` gets the files, or the folder, and what messages call the place. ``is_file`` sees a file and its first 64
    bytes; ``within`` gives the files of this kind that a folder with these names consists of, or the folder itself, or
    nothing. Where ``several`` is False one file is a place.
    """

    open: Callable[[Sequence[Path], str, Choice], ImageStorage]
    is_file: Callable[[Path, bytes], bool]
    within: Within = lambda root, names: ()
    several: bool = False
    knows: tuple[str, ...] = ()


def _ends(*suffixes: str) -> Callable[[Path, bytes], bool]:
    return lambda path, _: path.name.lower().endswith(suffixes)


def _tars_alone(root: Path, names: Sequence[str]) -> Sequence[Path]:
    """The shards of a folder in which nothing else is data."""
    tars = [name for name in names if name.lower().endswith(".tar")]
    others = [name for name in names if name not in tars and (has_suffix(name) or (root / name).is_dir())]
    return [root / name for name in tars] if tars and not others else ()


KINDS = (
    Kind(
        lambda paths, name, choice: open_cifar(paths[0], name, choice),
        is_cifar,
        cifar_within,
        knows=("split", "label_column"),
    ),
    Kind(open_imagenet, is_imagenet, imagenet_within, several=True, knows=("split",)),
    Kind(open_idx, is_idx, idx_within, knows=("split",)),
    Kind(
        ParquetStorage,
        is_parquet,
        parquet_within,
        several=True,
        knows=("split", "image_column", "label_column"),
    ),
    Kind(lambda paths, name, choice: LmdbStorage(paths[0], name), is_lmdb, lmdb_within),
    Kind(lambda paths, name, choice: ZipStorage(paths[0]), _ends(".zip")),
    Kind(lambda paths, name, choice: TarStorage(paths, name), _ends(".tar"), _tars_alone, several=True),
    Kind(lambda paths, name, choice: open_arrays(paths[0]), _ends(".npz", ".npy")),
)
FOLDER = Kind(lambda paths, name, choice: FolderStorage(paths[0]), lambda path, start: False)


def open_storage(source: str | Path | None, choice: Choice) -> ImageStorage:
    """The place of images that ``source`` names: a folder, a file, or several, as in ``a/{000..099}.tar``.

    What it is, is told by the names in a folder, and of a file by its name and its first bytes. UsageError where
    nothing is named, or what is chosen is not there; MissingInput where there is no such path or it cannot be read;
    BadFile where it is nothing that is read, or is damaged.
    """
    if source is None:
        raise UsageError("the data set 'folder' needs the path of a folder with images, or of an archive")
    text = expand_home(source)
    several = not os.path.exists(text) and is_list(text)
    paths = [_require(Path(part)) for part in _expand(text)] if several else [_require(Path(text))]
    try:
        kind, paths = _recognise(paths)
        _check_choice(kind, show_path(text), choice)
        return kind.open(paths, show_path(os.path.basename(text.rstrip("/"))), choice)
    except OSError as error:
        raise MissingInput(f"cannot read {show_path(str(error.filename or text))}: {error.strerror}") from error


def is_plain_folder(path: Path) -> bool:
    """Whether a folder holds pictures as files of their own, if any, rather than another kind of place."""
    return _recognise([path])[0] is FOLDER


def _recognise(paths: Sequence[Path]) -> tuple[Kind, Sequence[Path]]:
    if len(paths) == 1 and paths[0].is_dir():
        names = sorted(filter(is_visible, os.listdir(paths[0])))
        found = ((kind, kind.within(paths[0], names)) for kind in KINDS)
        return next(((kind, files) for kind, files in found if files), (FOLDER, paths))
    kinds = {_kind_of(path): path for path in paths}
    if len(kinds) > 1:
        some = ", ".join(show_path(path.name) for path in kinds.values())
        raise UsageError(f"these are not files of one kind: {some}", "name files of one kind")
    (kind,) = kinds
    if len(paths) > 1 and not kind.several:
        raise UsageError(
            f"{show_path(paths[0].name)} and {len(paths) - 1:,} more: of files of this kind one is a data set",
            "name one file",
        )
    return kind, paths


def _kind_of(path: Path) -> Kind:
    if path.is_dir():
        raise UsageError(f"{show_path(str(path))} is a folder, and only files can be named together", "name it alone")
    with path.open("rb") as file:
        start = file.read(START)
    for kind in KINDS:
        if kind.is_file(path, start):
            return kind
    what = kind_of(start)
    raise BadFile(
        f"{show_path(str(path))} is {'a ' + what if what else 'a file'}, not a folder or an archive that is read",
        f"what works: a folder, {', '.join(SUFFIXES)}; its folder is {show_path(str(path.parent))}",
    )


def _check_choice(kind: Kind, title: str, choice: Choice) -> None:
    for field in fields(choice):
        if getattr(choice, field.name) is not None and field.name not in kind.knows:
            what = {"split": "parts", "image_column": "columns", "label_column": "columns of labels"}[field.name]
            raise UsageError(
                f"{title} has no {what} to choose from", Hint("leave out {}", Setting(f"data.{field.name}"))
            )


def _expand(text: str) -> Sequence[str]:
    try:
        return expand_paths(text)
    except ValueError as error:
        raise UsageError(f"{show_path(text)} names no files: {error}", "write a range such as {000..099}") from None


def _require(root: Path) -> Path:
    if root.is_dir() or root.is_file():
        return root
    if root.exists():
        raise MissingInput(f"{root} is neither a folder nor a file")
    above = next(parent for parent in root.absolute().parents if parent.is_dir())
    there = sorted(entry.name for entry in above.iterdir() if _can_be_data(entry))
    near = closest(root.absolute().relative_to(above).parts[0], there)
    hint = f"did you mean '{above / near}'?" if near else f"in {above} there are: {list_some(there)}"
    raise MissingInput(f"there is no folder or file {show_path(str(root))}", hint)


def _can_be_data(entry: Path) -> bool:
    return not entry.name.startswith(".") and (entry.is_dir() or has_suffix(entry.name))
