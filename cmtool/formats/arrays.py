"""Arrays in files of other programs: a pickle, or a file of ``torch.save``, that holds dictionaries of them.

Nothing in the file is run: a pickle is read as data (``pickles``), and torch's reader of weights is allowed the few
names of which numpy makes an array, and no others.
"""

import codecs
import math
import mmap
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cmtool.errors import BadFile
from cmtool.formats.archive import read
from cmtool.formats.pickles import Machine, Record, Refused, Span

__all__ = ["read_arrays"]

DEEP = 4  # dictionaries in one another
rebuild: Any = np.zeros(0).__reduce__()[0]
ALLOWED: list[Any] = [
    *((rebuild, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
    *((np.ndarray, np.dtype, np.dtypes.Float64DType, np.dtypes.Float32DType, codecs.encode)),
]


def read_arrays(path: Path) -> Any:
    """Arrays, and dictionaries of arrays and numbers, out of a ``.pkl`` or ``.pt``; BadFile for anything else."""
    if path.suffix == ".pt":
        with torch.serialization.safe_globals(ALLOWED):
            return _plain(path, read(path))
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as memory:
            return _made(memory, Machine(memory).run())  # type: ignore[arg-type]
    except Refused as refusal:
        raise BadFile(f"{path} cannot be read: {refusal}", "get it again from whoever made it") from refusal
    except Exception as error:  # there is no end to what a broken stream can make a reader raise
        raise BadFile(f"{path} is no pickle of arrays, or is damaged", "get it again from whoever made it") from error


def _plain(path: Path, value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(path, inside) for key, inside in value.items()}
    if not isinstance(value, torch.Tensor | np.ndarray | int | float):
        raise BadFile(f"{path} holds more than arrays and numbers")
    return value.numpy() if isinstance(value, torch.Tensor) else value


def _made(memory: mmap.mmap, value: Any, depth: int = 0) -> Any:
    """Dictionaries as they are, records of arrays as arrays, of scalars as numbers; what is neither is left out."""
    if isinstance(value, dict) and depth < DEEP:
        made = {str(key): _made(memory, inside, depth + 1) for key, inside in value.items()}
        return {key: inside for key, inside in made.items() if inside is not None}
    if isinstance(value, Record) and value.name.endswith(".multiarray._reconstruct"):
        return _array(memory, value)
    if isinstance(value, Record) and value.name.endswith(".multiarray.scalar"):
        dtype, span = value.args
        return np.frombuffer(_bytes(memory, span), _dtype(dtype))[0]
    return value if isinstance(value, int | float) else None


def _array(memory: mmap.mmap, record: Record) -> np.ndarray:
    _, shape, dtype, fortran, span = record.state
    kind = _dtype(dtype)
    if math.prod(shape) * kind.itemsize != span.size:
        raise Refused("it has an array that is not as large as it says")
    return np.frombuffer(_bytes(memory, span), kind).reshape(shape, order="F" if fortran else "C")


def _bytes(memory: mmap.mmap, span: Any) -> bytes:
    if not isinstance(span, Span):
        raise Refused("it has an array without bytes")
    return memory[span.start : span.start + span.size]


def _dtype(record: Record) -> np.dtype:
    """A type of numbers, in the byte order that the file says."""
    if record.name != "numpy.dtype" or record.args[0] not in ("f8", "f4", "i8", "i4"):
        raise Refused("it has an array of something else than numbers")
    return np.dtype(record.args[0]).newbyteorder(record.state[1] if record.state else "=")
