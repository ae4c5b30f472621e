"""Images one after the other by every name that a data set may have as well: what ``fid`` and ``edit`` read.

Two readers share the work. That of streams takes pipes, pictures, and the folders and archives that commands write, in
one pass. All else is opened as a data set and read by number; no picture is resized.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from cmtool.data_paths import is_list
from cmtool.datasets.places import is_plain_folder
from cmtool.evaluation.accumulator import Images
from cmtool.files.streams import npz
from cmtool.files.streams.formats import FORMATS
from cmtool.files.streams.item import Item, StoredPicture, decode_items
from cmtool.files.streams.names import SkippedFiles
from cmtool.files.streams.reader import STREAM, items_of, keys_of
from cmtool.options import registry
from cmtool.options.data_spec import data_spec
from cmtool.pipelines.numbered_pictures import NumberedPictures, open_pictures
from cmtool.user_paths import expand_home

__all__ = ["has_names", "image_batches", "image_items", "image_keys", "is_stream", "stored_items"]


def is_stream(target: str | Path) -> bool:
    """Whether the reader of streams takes it, or has to say that there is no such thing.

    The name of a data set wins over a folder beside it, as in training; ``./digits`` is the folder.
    """
    text, path = str(target), Path(expand_home(target))
    if text == STREAM:
        return True
    if text in registry.names("datasets"):
        return False
    if path.is_dir():
        return is_plain_folder(path)
    if path.exists():
        suffix = path.suffix.lower()
        return suffix in FORMATS and (suffix != ".npz" or npz.holds_images(path))
    return data_spec(text)["name"] not in registry.names("datasets") or _is_missing(text)


def image_items(target: str | Path, passed: SkippedFiles | None = None) -> Iterator[Item]:
    """Every image of ``target``, each of its own size, with its label and the name of its class where they are known.

    ``passed`` counts pictures of kinds that are not read, and takes remarks. MissingInput, BadFile or UsageError for
    what is not there, damaged, or nothing that is read.
    """
    if is_stream(target):
        return items_of(target, passed)
    pictures = open_pictures(data_spec(str(target)))
    if passed is not None:
        for remark in pictures.remarks:
            passed.note(remark)
    return stored_items(pictures)


def image_batches(items: Iterator[Item], size: int) -> Iterator[Images]:
    """Images uint8, ``size`` at a time or fewer: [B, C, H, W] where all have one size, and else a list."""
    for some in decode_items(items, size):
        images = [torch.as_tensor(image) for _, image in some]
        yield torch.stack(images) if len({image.shape for image in images}) == 1 else images


def image_keys(target: str | Path) -> list[str]:
    """The ``key`` of every image, in their order, without their pixels where that can be."""
    if is_stream(target):
        return keys_of(target)
    pictures = open_pictures(data_spec(str(target)))
    return [pictures.key(number) for number in range(len(pictures))]


def has_names(target: str | Path) -> bool:
    """Whether images are identified by name: files in a folder or an archive."""
    if str(target) == STREAM:
        return False
    if not is_stream(target):
        pictures = open_pictures(data_spec(str(target)))
        return len(pictures) > 0 and bool(pictures.key(0))
    known = FORMATS.get(Path(target).suffix.lower())
    return Path(target).is_dir() or bool(known and known.named)


def stored_items(pictures: NumberedPictures) -> Iterator[Item]:
    """Pictures by number as items, which are decoded when they are looked at."""
    known = pictures.labels
    for number in range(len(pictures)):
        size = pictures.size(number)
        if size is None or (pictures.classes and known is None):  # its label comes with its pixels
            source, label = pictures.read(number)
        else:
            source = _later(pictures, number, 4 * size.width * size.height)
            label = None if known is None else known[number]
        name = "" if label is None else pictures.classes[label]
        yield Item(pictures.call(number), source, label, pictures.key(number), number, name)


def _later(pictures: NumberedPictures, number: int, size: int) -> StoredPicture:
    def read() -> np.ndarray:
        return pictures.read(number)[0]

    return StoredPicture(read, size)


def _is_missing(text: str) -> bool:
    """Whether a text is the path of one file or folder, and nothing lies there."""
    spec = data_spec(text)
    source = expand_home(spec["source"] or "")
    return spec["name"] == "folder" and source != "" and not Path(source).exists() and not is_list(source)
