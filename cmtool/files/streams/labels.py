"""Labels of a ``dataset.json`` for the pictures of a stream, and a word where they fit none, or only some."""

from collections.abc import Mapping, Sequence
from posixpath import dirname

from cmtool.files.streams.names import Passed
from cmtool.label_files import LABELS, label_file, pair

__all__ = ["chosen", "labels_of"]

SHOWN = 3  # names in a remark


def chosen(files: Sequence[str], pictures: Sequence[str], where: str, passed: Passed) -> str | None:
    """The path of the list of labels that counts, as in training; of others ``passed`` is told."""
    found, others = label_file(files, pictures)
    if others:
        names = ", ".join([*others[:SHOWN], *(["..."] if len(others) > SHOWN else [])])
        passed.note(f"{where}: labels that are not read: {names}; a {LABELS} counts where every image is in its folder")
    return found


def labels_of(
    said: Mapping[str, int], pictures: Sequence[str], file: str, name: str, passed: Passed
) -> list[int | None]:
    """The label of each picture in the list ``file``, called ``name``; of what does not fit, ``passed`` is told."""
    found = pair(said, pictures, dirname(file))
    known = sum(label is not None for label in found)
    if said and not known:
        passed.note(f"{name} names other files, such as {next(iter(said))}: its labels are not used")
    elif said and known < len(found):
        passed.note(f"{name} has no label for {len(found) - known:,} of {len(found):,} pictures")
    return found
