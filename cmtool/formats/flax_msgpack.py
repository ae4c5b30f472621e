"""Files that flax writes: MessagePack with arrays, read without either, and without running anything in them.

An array is MessagePack's extension 1, a number of one element its extension 3: the shape, the name of the type and the
bytes, packed in turn. Nothing else of Python can stand in such a file. Source: the specification of MessagePack.
"""

import math
import mmap
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cmtool.errors import report_damage

__all__ = ["mentions_keys", "unpack_flax"]

DEEPEST, LONGEST = 32, 1 << 16  # of containers in containers, and of entries in one
MOST = 200_000  # values in sum: an array has ten
TYPES = {"float32", "float64", "float16", "int32", "int64", "uint32", "uint8", "bool"}
NUMBERS = {
    0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q",
    0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q",
}  # fmt: skip
SIZES = {
    "bytes": {0xC4: ">B", 0xC5: ">H", 0xC6: ">I"},
    "text": {0xD9: ">B", 0xDA: ">H", 0xDB: ">I"},
    "list": {0xDC: ">H", 0xDD: ">I"},
    "dict": {0xDE: ">H", 0xDF: ">I"},
    "extension": {0xC7: ">B", 0xC8: ">H", 0xC9: ">I"},
}
SHORT = {"dict": range(0x80, 0x90), "list": range(0x90, 0xA0), "text": range(0xA0, 0xC0)}  # the size is in the byte
FIXED = {0xD4: 1, 0xD5: 2, 0xD6: 4, 0xD7: 8, 0xD8: 16}  # extensions of one size
NAMES = {0xC0: None, 0xC2: False, 0xC3: True}


def mentions_keys(path: Path, *names: str) -> bool:
    """Whether a file begins with a dict and has each of these as a whole string."""
    try:
        with path.open("rb") as file:
            if file.read(1) not in {bytes([first]) for first in SHORT["dict"]}:
                return False
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
                return all(text.find(bytes([0xA0 + len(name)]) + name.encode()) > 0 for name in names)
    except (OSError, ValueError):
        return False


def unpack_flax(path: Path) -> Any:
    """What flax packed: numpy arrays in dicts and lists; BadFile when it is damaged or holds anything else.

    Arrays are views of the file, which is read where they are used.
    """
    with report_damage(path, "is damaged, or no file of flax", "get it again from whoever made it"):
        with path.open("rb") as file:
            reader = MsgpackReader(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)), [MOST])
        found = reader.value(0)
        if reader.at != len(reader.text):
            raise ValueError("more than one value")
        return found


class MsgpackReader:
    """Reads ``text`` once; ValueError where it ends early or says what flax does not write.

    ``left`` is how many values it may still have, counted together with the readers of what is packed inside.
    """

    def __init__(self, text: memoryview, left: list[int]):
        self.text, self.at, self.left = text, 0, left

    def take(self, size: int) -> memoryview:
        if size > len(self.text) - self.at:
            raise ValueError("it is cut short")
        self.at += size
        return self.text[self.at - size : self.at]

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def value(self, depth: int) -> Any:
        self.left[0] -= 1
        if self.left[0] < 0:
            raise ValueError("it has more values than weights")
        first = self.take(1)[0]
        if first < 0x80 or first >= 0xE0:
            return first if first < 0x80 else first - 0x100
        if first in NAMES:
            return NAMES[first]
        if first in NUMBERS:
            return self.number(NUMBERS[first])
        if first in FIXED:
            return self.extension(FIXED[first], depth)
        for kind, codes in SHORT.items():
            if first in codes:
                return self.made(kind, first - codes[0], depth)
        for kind, forms in SIZES.items():
            if first in forms:
                return self.made(kind, self.number(forms[first]), depth)
        raise ValueError(f"byte {first:#x} begins nothing")

    def made(self, kind: str, size: int, depth: int) -> Any:
        """A thing whose size is known."""
        if kind in ("list", "dict") and (depth > DEEPEST or size > LONGEST):
            raise ValueError("it is too deep or too long for weights")
        make: dict[str, Callable[[], Any]] = {
            "bytes": lambda: self.take(size),
            "text": lambda: str(self.take(size), "utf-8"),
            "list": lambda: [self.value(depth + 1) for _ in range(size)],
            "dict": lambda: {self.key(): self.value(depth + 1) for _ in range(size)},
            "extension": lambda: self.extension(size, depth),
        }
        return make[kind]()

    def key(self) -> str:
        found = self.value(DEEPEST)
        if not isinstance(found, str):
            raise ValueError("a name is no text")
        return found

    def extension(self, size: int, depth: int) -> np.ndarray:
        code = self.number(">b")
        if code not in (1, 3):
            raise ValueError(f"extension {code} is no array")
        if depth > DEEPEST:
            raise ValueError("it is too deep for weights")
        inside = MsgpackReader(self.take(size), self.left)
        return array(inside.value(DEEPEST - 1))  # the shape is one deeper


def array(found: Any) -> np.ndarray:
    """The shape, the name of the type, and the bytes."""
    shape, name, raw = found
    plain = isinstance(shape, list) and all(type(side) is int and side >= 0 for side in shape)
    if not plain or name not in TYPES or not isinstance(raw, memoryview):
        raise ValueError(f"an array of type {name} is not read" if plain else "an array has no shape")
    if len(raw) != math.prod(shape) * np.dtype(name).itemsize:
        raise ValueError("an array is not as large as its shape")
    return np.frombuffer(raw, np.dtype(name).newbyteorder("<")).reshape(shape)
