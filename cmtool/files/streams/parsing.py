"""The one place where whatever a parser raises on a damaged or foreign file becomes a BadFile."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from cmtool.errors import BadFile, CmtoolError, MissingInput, printable

__all__ = ["MOST_LABEL", "parsing", "whole_label"]

MOST_LABEL = 2**31 - 1  # no data set has more classes
NO_FAULT_OF_THE_DISK = (None, errno.EINVAL)  # what bz2 raises, and a seek to where no file goes


@contextmanager
def parsing(name: str, what: str, hint: str | None = None) -> Iterator[None]:
    """BadFile, ``name is not WHAT, or is damaged: ...``, for all that libraries raise on strange bytes.

    No list of it exists: lzma and zlib have errors of their own, and a header of zeros divides by zero. MissingInput
    where the system cannot read; our own errors, and memory that is really gone, pass.
    """
    try:
        yield
    except (CmtoolError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno not in NO_FAULT_OF_THE_DISK:
            raise MissingInput(f"cannot read {name}: {error.strerror}") from error
        reason = " ".join(printable(error).split())[:200]
        raise BadFile(f"{name} is not {what}, or is damaged{f': {reason}' if reason else ''}", hint) from error


def whole_label(value: object, name: str) -> int:
    """A label as a whole number from 0; BadFile for anything else."""
    if type(value) is not int or not 0 <= value <= MOST_LABEL:
        raise BadFile(f"{name} has a label that is no class: {printable(repr(value)[:40])}", "labels are 0, 1, 2, ...")
    return value
