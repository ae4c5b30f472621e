"""Which texts are the paths of data: suffixes of archives, and several files in one text, ``{000..099}.tar``."""

import re
from collections.abc import Sequence

__all__ = ["SUFFIXES", "expand_paths", "has_suffix", "is_list"]

# what a single file of images may be called by; others are known by their contents
SUFFIXES = (".zip", ".tar", ".npz", ".npy", ".tar.gz", ".tgz", ".parquet", ".lmdb", ".mdb", "-ubyte", "-ubyte.gz")
RANGE = re.compile(r"\{(\d{1,9})\.\.(\d{1,9})\}")
MOST = 1_000_000  # files


def has_suffix(text: str) -> bool:
    """Whether it ends as a file of images does."""
    return text.lower().endswith(SUFFIXES)


def is_list(text: str) -> bool:
    """Whether it names several files: by a range in braces, or by a comma between files that end as such do."""
    return bool(RANGE.search(text)) or ("," in text and all(map(has_suffix, text.split(","))))


def expand_paths(text: str) -> Sequence[str]:
    """The files of ``a/{000..099}.tar`` or ``a.tar,b.tar`` in their order, as WebDataset and shells write them.

    A range has as many digits as its first number; several ranges count like the digits of a number. ValueError for a
    range that falls, and for more than a million files.
    """
    found: list[str] = []
    for part in text.split(","):
        found += _expand(part, MOST - len(found))
    return found


def _expand(text: str, most: int) -> list[str]:
    match = RANGE.search(text)
    if not match:
        return [text]
    first, last = int(match[1]), int(match[2])
    if first > last:
        raise ValueError(f"the range {match[0]} falls")
    if last - first >= most:
        raise ValueError(f"{match[0]} stands for more than {MOST:,} files")
    numbers = [f"{number:0{len(match[1])}d}" for number in range(first, last + 1)]
    tails = _expand(text[match.end() :], most // len(numbers))
    return [text[: match.start()] + number + tail for number in numbers for tail in tails]
