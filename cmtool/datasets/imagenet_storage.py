"""Downsampled ImageNet, as its authors publish it: npz files of 64 pixels, pickles of 8, 16 and 32, never unpickled.

Source: Chrabaszcz, Loshchilov and Hutter, A Downsampled Variant of ImageNet as an Alternative to the CIFAR datasets,
2017, arXiv 1707.08819, section 3 and its scripts: ``data`` uint8 [N, 3 R^2], all red values first, and ``labels`` from
1 to 1000 in the order of the ILSVRC devkit, ``map_clsloc.txt``.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from cmtool.datasets.archive_names import whole
from cmtool.datasets.array_storage import ArrayFile
from cmtool.datasets.pickled import planar_images, read_table
from cmtool.datasets.positional import PositionalFile
from cmtool.datasets.raw_images import ArrayPlace, RawImages
from cmtool.datasets.storage import Choice, fingerprint, show_path
from cmtool.errors import BadFile, MissingInput

__all__ = ["imagenet_within", "is_imagenet", "open_imagenet"]

TRAIN, VALIDATION = re.compile(r"train_data(?:_batch_(\d+))?(\.npz)?"), re.compile(r"val_data(\.npz)?")
ORDER, CLASSES = "map_clsloc.txt", 1000
UNORDERED = (
    f"the classes are called by their numbers in the ILSVRC devkit; with its {ORDER} beside the files they are in"
    " the order of their WordNet ids, as elsewhere"
)


def is_imagenet(path: Path, start: bytes) -> bool:
    """Whether a file is called as these are, or is an npz whose ``data`` are rows of values."""
    if TRAIN.fullmatch(path.name) or VALIDATION.fullmatch(path.name):
        return True
    if path.suffix.lower() != ".npz":
        return False
    file = ArrayFile(path)
    try:
        with whole(path, "an .npz file"):
            return {"data", "labels"} <= set(file.names()) and len(file.shape("data")) == 2
    except BadFile:
        return False  # what is wrong is said by the reader of other npz files


def imagenet_within(root: Path, names: Sequence[str]) -> Sequence[Path]:
    """The files of both parts that a folder holds."""
    return [root / name for name in names if TRAIN.fullmatch(name) or VALIDATION.fullmatch(name)]


def open_imagenet(paths: Sequence[Path], title: str, choice: Choice) -> ArrayPlace:
    """The images of the training files, unless ``choice`` or the only file says another part, in the files' order."""
    chosen = _choose(paths, title, choice.split)
    read = [_read(path) for path in chosen]
    images = RawImages(
        [planar_images(data, show_path(str(path))) for path, (data, _) in zip(chosen, read, strict=True)], title
    )
    labels = [number - 1 for _, numbers in read for number in numbers]
    if len(labels) != len(images) or not 0 <= min(labels) <= max(labels) < CLASSES:
        raise BadFile(f"{title} holds {len(images):,} images, but not as many labels from 1 to {CLASSES}")
    order = _order(chosen[0].parent / ORDER)
    names = sorted(order) if order else [str(k + 1) for k in range(CLASSES)]
    if order:
        place = {wordnet: k for k, wordnet in enumerate(names)}
        ranks = [place[wordnet] for wordnet in order]
        labels = [ranks[label] for label in labels]
    marks = {path.name: _mark(path) for path in chosen}
    return ArrayPlace(
        images,
        title,
        title,
        marks,
        labels,
        dict(enumerate(names)),
        None if order else UNORDERED,
        "downsampled ImageNet",
    )


def _choose(paths: Sequence[Path], title: str, split: str | None) -> Sequence[Path]:
    """The files of a part, batch 10 after batch 9."""
    if len(paths) == 1 and split is None:
        return paths
    train = sorted((path for path in paths if TRAIN.fullmatch(path.name)), key=lambda path: (len(path.name), path.name))
    rest = [path for path in paths if path not in train]
    chosen = {"train": train, "test": rest, "all": [*train, *rest]}[split or "train"]
    if not chosen:
        raise MissingInput(f"{title} holds no files of the part {split or 'train'}", "the others are split=test")
    return chosen


def _read(path: Path) -> tuple[np.ndarray, list[int]]:
    """Rows, which stay on the disk where they are not compressed, and labels."""
    if path.suffix.lower() != ".npz":
        table = read_table(path)
        return table.array("data", mapped=True), table.numbers("labels")
    file = ArrayFile(path)
    with whole(path, "an .npz file"):
        if not {"data", "labels"} <= set(file.names()):
            raise BadFile(f"{file.title} has no arrays data and labels")
        return file.read("data")[0], file.read("labels")[0].astype(np.int64).tolist()


def _order(path: Path) -> list[str]:
    """The WordNet ids in the order of the devkit; none where the file is not there."""
    if not path.is_file():
        return []
    with path.open("rb") as file:
        lines = file.read(1 << 20).decode("utf-8", "replace").splitlines()
    found: Mapping[str, str] = {words[1]: words[0] for line in lines if len(words := line.split()) > 1}
    if len(set(found.values())) != CLASSES or found.keys() != {str(k + 1) for k in range(CLASSES)}:
        raise BadFile(
            f"{show_path(str(path))} does not number {CLASSES} classes from 1 on", "lines are: n02119789 1 kit_fox"
        )
    return [found[str(k + 1)] for k in range(CLASSES)]


def _mark(path: Path) -> int:
    file = PositionalFile(path, kept=False)
    return fingerprint(file, 0, file.size)
