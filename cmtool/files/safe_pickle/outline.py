"""What a file of ``torch.save`` or a pickle of arrays holds: an outline of it as JSON, with the places of the numbers.

    ["d", key, value, ...]                                          a dictionary
    ["l", value, ...]                                               a list, tuple or set
    ["t", type, start, count, offset, shape, strides]               a tensor (``tensor_layout.tensor_places``)
    ["a", dtype, start, size, text, shape, fortran]                 an array of numpy
    ["o", name]                                                     anything else, which is not read

and numbers and texts as they are. Standard library only: it runs in a process of its own (``sandbox``).
Source: torch/serialization.py describes both layouts, the zip and the one before it.
"""

import mmap
import struct
from collections.abc import Callable
from typing import Any, BinaryIO

from cmtool.files.safe_pickle.tensor_layout import WIDTHS, Stored, storage_layout, tensor_places
from cmtool.files.safe_pickle.unpickler import Name, Record, Refusal, Span, Text, Unpickler
from cmtool.files.safe_pickle.zip_reader import MAGIC, open_archive

__all__ = ["describe"]

DEEP, NODES, LETTERS, LONGEST = 40, 200_000, 1 << 22, 1 << 16
CODES = {"f8": "d", "f4": "f", "f2": "e", "i8": "q", "i4": "i", "i2": "h", "i1": "b", "u1": "B", "b1": "?"}


def describe(file: BinaryIO) -> Any:
    """The outline of a file; Refusal for one that is damaged, or larger than any of its kind."""
    memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if memory[:2] == b"PK":
        unpickler, entries = open_archive(file, memory)
        top = unpickler.load()
        return Outline(memory, lambda storage: storage_in_zip(storage, entries)).of(top)
    if MAGIC in memory[:64]:
        top, found = load_legacy(memory)
        return Outline(memory, lambda storage: storage_in_legacy(storage, found)).of(top)
    return Outline(memory, lambda storage: storage_layout(memory, storage)).of(Unpickler(memory).load())  # type: ignore[arg-type]


def reference(storage: Any) -> tuple[str, str, int, Any]:
    """Type, key, number of values, and view of a storage that stands outside the pickle."""
    if not isinstance(storage, Record) or storage.name != "persistent":
        raise Refusal("it has a storage that is none")
    return lookup_key(storage.args)


def lookup_key(args: Any) -> tuple[str, str, int, Any]:
    word, kind, key, _, count, *view = args
    if word != "storage" or not isinstance(kind, Name) or not isinstance(key, str) or type(count) is not int:
        raise Refusal("it has a storage that is none")
    kind = kind.removeprefix("torch.").removeprefix("storage.").removesuffix("Storage")
    return kind, key, count, view[0] if view else None


def storage_in_zip(storage: Any, entries: dict[str, tuple[int, int]]) -> Stored:
    """A storage is an entry of the zip that is called by its key."""
    kind, key, count, _ = reference(storage)
    start, size = entries.get(f"data/{key}", (0, -1))
    if not 0 <= count * WIDTHS.get(kind, 1) <= size:
        raise Refusal("it has a storage that is cut short")
    return kind, start, count


def load_legacy(memory: mmap.mmap) -> tuple[Any, dict[str, Stored]]:
    """The layout before the zip: as ``tensor_layout.storage_layout`` has it, of many storages one after the other."""
    for _ in range(3):
        Unpickler(memory).load()  # type: ignore[arg-type]
    unpickler = Unpickler(memory)  # type: ignore[arg-type]
    top, keys = unpickler.load(), Unpickler(memory).load()  # type: ignore[arg-type]
    kinds = {key: kind for kind, key, _, _ in map(lookup_key, unpickler.outside)}
    found, at = {}, memory.tell()
    for key in keys:
        (count,) = struct.unpack("<q", memory[at : at + 8])
        size = count * WIDTHS[kinds[key]]
        if count < 0 or at + 8 + size > len(memory):
            raise Refusal("it has a storage that is cut short")
        found[key] = (kinds[key], at + 8, count)
        at += 8 + size
    return top, found


def storage_in_legacy(storage: Any, found: dict[str, Stored]) -> Stored:
    """A storage of the old layout, or a part of it, as the oldest versions of torch kept views."""
    _, key, _, view = reference(storage)
    kind, start, count = found[key]
    if view is None:
        return kind, start, count
    _, offset, size = view
    if not (type(offset) is type(size) is int and 0 <= offset <= offset + size <= count):
        raise Refusal("it has a storage that is cut short")
    return kind, start + offset * WIDTHS[kind], size


def stands_at(value: Any) -> Any:
    """The place of bytes that Python 2 wrote, which are read as a text; everything else as it is."""
    return value.span if isinstance(value, Text) and not value.span.text else value


class Outline:
    """Makes the outline of an object, of so many parts and letters at most: an alias is written out every time."""

    def __init__(self, memory: mmap.mmap, stored: Callable[[Any], Stored]):
        self.memory, self.stored = memory, stored
        self.nodes, self.letters = NODES, LETTERS

    def of(self, value: Any, depth: int = 0) -> Any:
        self.nodes -= 1
        if depth > DEEP or self.nodes < 0:
            raise Refusal("it has more parts than a network")
        if isinstance(value, dict):
            pairs = [(self.key(key), self.of(inside, depth + 1)) for key, inside in value.items()]
            return ["d", *(x for pair in pairs for x in pair)]
        if isinstance(value, Record):
            return self.record(value)
        if isinstance(value, Name | Span):
            return ["o", value if isinstance(value, Name) else "bytes"]
        if isinstance(value, list | tuple):
            return ["l", *(self.of(inside, depth + 1) for inside in value)]
        if isinstance(value, str):
            return self.text(value) if len(value) <= LONGEST else ["o", "text"]
        return value if not isinstance(value, int) or abs(value) < 1 << 63 else ["o", "int"]

    def key(self, key: Any) -> Any:
        return self.text(key) if isinstance(key, str) else key

    def text(self, text: str) -> str:
        self.letters -= len(text.encode())  # half a surrogate pair is no text
        if self.letters < 0:
            raise Refusal("it has more text than a network")
        return text

    def record(self, record: Record) -> Any:
        """A tensor, an array or a number; of everything else the name."""
        if record.name.endswith(".multiarray.scalar"):
            dtype, span = record.args
            code = CODES[dtype.args[0]]
            order = dtype.state[1] if dtype.state and dtype.state[1] in "<>" else "<"
            return struct.unpack(order + code, self.bytes(stands_at(span)))[0]
        if record.name.endswith(".multiarray._reconstruct") and record.state:
            _, shape, dtype, fortran, span = record.state
            return self.array(shape, dtype, fortran, stands_at(span))
        if record.name.endswith(".numeric._frombuffer"):
            span, dtype, shape, order = record.args
            return self.array(shape, dtype, order == "F", span)
        found = tensor_places(record, self.stored)
        return ["o", record.name] if found is None else ["t", *found]

    def array(self, shape: Any, dtype: Any, fortran: Any, span: Any) -> Any:
        numbers = isinstance(dtype, Record) and dtype.name == "numpy.dtype" and dtype.args[0] in CODES
        if not numbers or not isinstance(span, Span):
            return ["o", "numpy.ndarray"]
        self.nodes -= len(shape)
        order = dtype.state[1] if dtype.state and dtype.state[1] in "<>" else "="
        return ["a", order + dtype.args[0], *span, list(shape), bool(fortran)]

    def bytes(self, span: Span) -> bytes:
        raw = self.memory[span.start : span.start + min(span.size, 64)]
        return raw.decode().encode("latin1") if span.text else raw
