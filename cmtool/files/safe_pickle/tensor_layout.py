"""Where the values of a tensor stand that a pickle describes. Standard library only: it runs in the ``sandbox``."""

import io
import math
import mmap
import struct
from collections.abc import Callable
from typing import Any

from cmtool.files.safe_pickle.unpickler import Record, Refusal, Span, Unpickler

__all__ = ["SIZES", "WIDTHS", "storage_layout", "tensor_places"]

SIZES = {
    **dict.fromkeys(("Double", "Long"), 8),
    **dict.fromkeys(("Float", "Int"), 4),
    **dict.fromkeys(("Half", "BFloat16", "Short"), 2),
    **dict.fromkeys(("Byte", "Char", "Bool"), 1),
}
WIDTHS = {**SIZES, "ComplexDouble": 16, "ComplexFloat": 8, "QInt8": 1, "QUInt8": 1, "QInt32": 4, "Untyped": 1}
DIMENSIONS = 16
TENSORS = {"torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor"}
Stored = tuple[str, int, int]


def tensor_places(tensor: Any, stored: Callable[[Any], Stored]) -> list[Any] | None:
    """``[type, start, count, offset, shape, strides]``; None for what is no plain tensor (sparse, quantized, ...).

    ``storage_layout`` gives type, place and number of the values of a storage. Refusal unless all values lie inside it.
    """
    while isinstance(tensor, Record) and tensor.name == "torch._utils._rebuild_parameter" and tensor.state is None:
        tensor = tensor.args[0]
    if not isinstance(tensor, Record) or tensor.name not in TENSORS or tensor.state is not None or any(tensor.args[6:]):
        return None
    storage, offset, shape, strides, *_ = tensor.args
    kind, start, count = stored(storage)
    if kind not in SIZES:
        return None
    shape, strides = list(shape), list(strides)
    numbers = [offset, *shape, *strides]
    if len(shape) != len(strides) or not all(type(n) is int and 0 <= n < 1 << 62 for n in numbers):
        raise Refusal("it has a tensor of no shape")
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    if len(shape) > DIMENSIONS or math.prod(shape) > count or (0 not in shape and last >= count):
        raise Refusal("it has a tensor that is larger than its values")
    return [kind, start, count, offset, shape, strides]


def storage_layout(memory: mmap.mmap, storage: Any) -> Stored:
    """Of a storage that torch saved as a file within the pickle.

    Five pickles (a number, a version, the machine, the storage, its keys), the number of values in 8 bytes, the values.
    """
    if not isinstance(storage, Record) or storage.name != "torch.storage._load_from_bytes":
        raise Refusal("it has a storage that is none")
    (span,) = storage.args
    if not isinstance(span, Span) or span.text:
        raise Refusal("it has a storage without bytes")
    inner = io.BytesIO(memory[span.start : span.start + min(span.size, 4096)])
    *_, record, _ = [Unpickler(inner).load() for _ in range(5)]
    kind = record.args[1].removeprefix("torch.").removesuffix("Storage")
    (count,) = struct.unpack("<q", inner.read(8))
    if count < 0 or inner.tell() + count * SIZES[kind] > span.size:
        raise Refusal("it has a storage that is cut short")
    return kind, span.start + inner.tell(), count
