"""Labels of a ``dataset.json`` for the pictures of a stream, and a word where they fit none, or only some.

Labels out of files of other programs.
"""

from collections.abc import Mapping, Sequence
from posixpath import dirname

from cmtool.errors import BadFile, printable
from cmtool.files.streams.names import SkippedFiles
from cmtool.label_files import LABELS, label_file, match_labels

__all__ = ["MOST_LABEL", "choose_file", "labels_of", "whole_label"]


SHOWN = 3  # names in a remark


def choose_file(files: Sequence[str], pictures: Sequence[str], where: str, passed: SkippedFiles) -> str | None:
    """The path of the list of labels that counts, as in training; ``passed`` is called with the others."""
    found, others = label_file(files, pictures)
    if others:
        names = ", ".join([*others[:SHOWN], *(["..."] if len(others) > SHOWN else [])])
        passed.note(f"{where}: labels that are not read: {names}; a {LABELS} counts where every image is in its folder")
    return found


def labels_of(
    said: Mapping[str, int], pictures: Sequence[str], file: str, name: str, passed: SkippedFiles
) -> list[int | None]:
    """The label of each picture in the list ``file``, called ``name``; ``passed`` is called with what does not fit."""
    found = match_labels(said, pictures, dirname(file))
    known = sum(label is not None for label in found)
    if said and not known:
        passed.note(f"{name} names other files, such as {next(iter(said))}: its labels are not used")
    elif said and known < len(found):
        passed.note(f"{name} has no label for {len(found) - known:,} of {len(found):,} pictures")
    return found


MOST_LABEL = 2**31 - 1  # no data set has more classes


def whole_label(value: object, name: str) -> int:
    """A label as a whole number from 0; BadFile for anything else."""
    if type(value) is not int or not 0 <= value <= MOST_LABEL:
        raise BadFile(f"{name} has a label that is no class: {printable(repr(value)[:40])}", "labels are 0, 1, 2, ...")
    return value
