"""Files of ``torch.save``, of today's layout (a zip) and of the one before it, read without running anything in them.

Another process says what stands where (``outline``, ``sandbox``), within limits on its memory and time; torch's own
reader, which makes containers and tensors as a file asks for them, sees none of it. Here the tensors are views of the
mapped file, so that what nobody asks for, such as the state of an optimizer, is never read.
"""

import mmap
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cmtool.errors import BadFile
from cmtool.files.safe_pickle.sandbox import describe_objects
from cmtool.files.safe_pickle.zip_reader import MAGIC, MOST, open_zip

__all__ = ["Other", "find_pickle", "mentions", "read_arrays", "read_tensors", "read_torch_file", "state_dict"]

TYPES = {
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
}

SHARED, SMALL = 16, 1 << 26  # times the file, and bytes more, that tensors which share their values may take apart
BROKEN = (OSError, ValueError, EOFError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class Other:
    """What is neither a container, nor a tensor, an array, a number or a text: its name alone."""

    name: str


def find_pickle(path: Path) -> bytes:
    """The pickle in a file of ``torch.save``, as bytes; empty for every other file."""
    try:
        with path.open("rb") as file:
            start = file.read(64)
            if MAGIC in start:  # the pickle stands first, and its end is not recorded
                return start + file.read(MOST)
            if not start.startswith(b"PK"):
                return b""
            archive = open_zip(file)
            (entry,) = [entry for entry in archive.infolist() if entry.filename.endswith("/data.pkl")]
            plain = entry.compress_type == zipfile.ZIP_STORED and entry.file_size <= MOST
            return archive.read(entry) if plain else b""
    except BROKEN:
        return b""


def mentions(text: bytes, *names: str) -> bool:
    """Whether a pickle holds each of these as a whole string, not as a part of another one."""
    raw = [name.encode() for name in names]
    return all(len(n).to_bytes(4, "little") + n in text or b"\x8c" + bytes([len(n)]) + n in text for n in raw)


def read_torch_file(path: Path) -> Any:
    """What ``torch.save`` or numpy wrote: tensors and arrays on the CPU in dictionaries and lists.

    Anything else is an ``Other``. Tensors are views of the file. BadFile when it is damaged, or asks for more.
    """
    return read_outline(path, describe_objects(path))


def read_outline(path: Path, outline: Any) -> Any:
    """The same for an outline that was made."""
    try:
        with path.open("rb") as file:
            return Reader(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)).of(outline)
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise BadFile(f"{path} is damaged, or changed while it was read", "copy or download it again") from error


class Reader:
    """Makes what an outline tells, with the numbers of a mapped file."""

    def __init__(self, memory: mmap.mmap):
        self.memory = memory

    def of(self, node: Any) -> Any:
        if not isinstance(node, list):
            return node
        kind, *rest = node
        if kind == "d":
            return dict(zip(rest[::2], map(self.of, rest[1::2]), strict=True))
        if kind == "l":
            return [self.of(inside) for inside in rest]
        return Other(rest[0]) if kind == "o" else self.tensor(*rest) if kind == "t" else self.array(*rest)

    def tensor(self, kind: str, start: int, count: int, offset: int, shape: list[int], strides: list[int]) -> Tensor:
        if not count:
            return torch.empty(shape, dtype=TYPES[kind])
        values = torch.frombuffer(self.memory, dtype=TYPES[kind], count=count, offset=start)
        return values.as_strided(shape, strides, offset)

    def array(self, dtype: str, start: int, size: int, text: bool, shape: list[int], fortran: bool) -> np.ndarray:
        raw = self.memory[start : start + size]
        values = np.frombuffer(raw.decode().encode("latin1") if text else raw, np.dtype(dtype))
        return values.reshape(shape, order="F" if fortran else "C")


def state_dict(path: Path, found: Any) -> dict[str, Tensor]:
    """``found`` as named tensors of floating point, in memory of their own; BadFile when it is anything else.

    Tensors may share values, as tied weights do, while what all take apart has a bound.
    """
    if not isinstance(found, dict):
        raise BadFile(f"{path} holds no named tensors, and cannot be a network alone")
    wrong = [(name, value) for name, value in found.items() if not isinstance(name, str) or not plain(value)]
    if wrong:
        name, value = wrong[0]
        what = value.name if isinstance(value, Other) else type(value).__name__
        raise BadFile(f"{path} holds more than named tensors, and cannot be a network alone: '{name}' is a {what}")
    size, held = sum(value.numel() * value.element_size() for value in found.values()), path.stat().st_size
    if size > SHARED * held + SMALL:
        raise BadFile(
            f"{path} has tensors that share memory, and apart they would take {size >> 20:,} MB, "
            f"{size // held:,} times as much as the file",
            "save them anew, each in memory of its own",
        )
    return {name: value.clone(memory_format=torch.contiguous_format) for name, value in found.items()}


def read_tensors(path: Path, table: Mapping[str, list[Any]]) -> dict[str, Tensor]:
    """The tensors of a table ``{name: [type, start, count, offset, shape, strides]}``, in memory of their own."""
    found = {}
    with path.open("rb") as file:
        for name, (kind, start, count, offset, shape, strides) in table.items():
            values = torch.empty(count, dtype=TYPES[kind])
            file.seek(start)
            if count and file.readinto(values.view(torch.uint8).numpy().data) != values.nbytes:
                raise BadFile(f"{path} changed while it was read", "try again")
            found[name] = values.as_strided(shape, strides, offset).contiguous()
    return found


def read_arrays(path: Path) -> Any:
    """An array, or dictionaries of arrays and numbers, out of a ``.pkl`` or ``.pt``; BadFile for anything else.

    What is neither is left out of a dictionary.
    """
    found = _as_arrays(read_torch_file(path))
    if found is None:
        raise BadFile(f"{path} holds no arrays", "get it again from whoever made it")
    return found


def _as_arrays(value: Any) -> Any:
    if isinstance(value, dict):
        made = {str(key): _as_arrays(inside) for key, inside in value.items()}
        return {key: inside for key, inside in made.items() if inside is not None}
    if isinstance(value, torch.Tensor):
        return (value.float() if value.dtype is torch.bfloat16 else value).numpy().copy()
    return value if isinstance(value, np.ndarray | int | float) else None


def plain(value: Any) -> bool:
    return isinstance(value, Tensor) and value.layout is torch.strided and value.is_floating_point()
