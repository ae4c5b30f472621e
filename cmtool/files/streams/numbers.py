"""Labels out of files of other programs."""

from cmtool.errors import BadFile, printable

__all__ = ["MOST_LABEL", "whole_label"]

MOST_LABEL = 2**31 - 1  # no data set has more classes


def whole_label(value: object, name: str) -> int:
    """A label as a whole number from 0; BadFile for anything else."""
    if type(value) is not int or not 0 <= value <= MOST_LABEL:
        raise BadFile(f"{name} has a label that is no class: {printable(repr(value)[:40])}", "labels are 0, 1, 2, ...")
    return value
