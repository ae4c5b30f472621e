"""Whether an LMDB file is sound: the library trusts it, and a damaged one kills the process that reads it.

Source: lmdb.h and mdb.c of LMDB 0.9, "Page headers", "Node header" and "Meta page content", with words of 64 bits.
"""

import mmap
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

__all__ = ["check_pages"]

MAGIC, PAGE, NODE = 0xBEEFC0DE, 16, 8  # bytes before what a page holds, and before the key of a node
BRANCH, LEAF, OVERFLOW = 1, 2, 4  # flags of pages
BIG, SUBDATABASE = 1, 2  # flags of nodes
EMPTY = (1 << 64) - 1  # the root of a database without entries
SIZES = tuple(1 << k for k in range(9, 17))  # of a page


class Root(NamedTuple):
    transaction: int
    page: int
    depth: int
    size: int  # of a page


def check_pages(path: Path) -> None:
    """ValueError unless all that the tree of keys refers to lies where it should, within the file."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as memory:
        root = _root(memory)
        level, seen = [root.page] if root.page != EMPTY else [], 0
        for depth in range(root.depth if level else 0):
            below: list[int] = []
            for page in level:
                below += _children(memory, page, root.size, leaf=depth == root.depth - 1)
            seen += len(below)
            if seen * root.size > len(memory):
                raise ValueError("its pages refer to each other in circles")
            level = below


def _root(memory: mmap.mmap) -> Root:
    """The newer of the two roots."""
    size = struct.unpack_from("<I", memory, PAGE + 24)[0]
    if size not in SIZES or len(memory) < 2 * size:
        raise ValueError("it has no size of pages, or is cut short")
    found = []
    for at in (PAGE, size + PAGE):
        magic, depth, page, last, transaction = (
            struct.unpack_from(kind, memory, at + place)[0]
            for kind, place in (("<I", 0), ("<H", 78), ("<Q", 112), ("<Q", 120), ("<Q", 128))
        )
        if magic != MAGIC or depth > 32:
            raise ValueError("its first pages are damaged")
        found.append(Root(transaction, page, depth, size))
        if transaction and (last + 1) * size > len(memory) and transaction == max(one.transaction for one in found):
            raise ValueError("it is cut short")
    return max(found)


def _children(memory: mmap.mmap, page: int, size: int, leaf: bool) -> Sequence[int]:
    """The pages that the nodes of a page refer to; of a leaf none, but its values are checked."""
    start = page * size
    if start + size > len(memory):
        raise ValueError("a page is not in the file")
    number, _, flags, lower, upper = struct.unpack_from("<QHHHH", memory, start)
    if number != page or flags & 7 != (LEAF if leaf else BRANCH) or not PAGE <= lower <= upper <= size or lower % 2:
        raise ValueError(f"page {page} is damaged")
    below = []
    for (place,) in struct.iter_unpack("<H", memory[start + PAGE : start + lower]):
        if not upper <= place <= size - NODE:
            raise ValueError(f"page {page} is damaged")
        low, high, kind, key = struct.unpack_from("<HHHH", memory, start + place)
        value = low | high << 16
        inside = place + NODE + key + ((8 if kind & BIG else value) if leaf else 0)
        if inside > size or (leaf and kind & ~(BIG | SUBDATABASE)):
            raise ValueError(f"page {page} is damaged, or its keys have several values")
        if not leaf:
            below.append(value | kind << 32)
        elif kind & BIG:
            _check_overflow(memory, struct.unpack_from("<Q", memory, start + place + NODE + key)[0], size, value)
    return below


def _check_overflow(memory: mmap.mmap, page: int, size: int, value: int) -> None:
    start = page * size
    if start + PAGE + value > len(memory):
        raise ValueError("a value is not in the file")
    number, _, flags, pages = struct.unpack_from("<QHHI", memory, start)
    if number != page or flags & 7 != OVERFLOW or pages * size < PAGE + value:
        raise ValueError(f"page {page} is damaged")
