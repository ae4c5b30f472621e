"""Tensors that stand somewhere in a file, as ``persistent.describe`` lists them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cmtool.errors import BadFile

__all__ = ["TYPES", "read"]

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


def read(path: Path, table: Mapping[str, list[Any]]) -> dict[str, Tensor]:
    """The tensors of a table ``{name: [dtype, start, count, offset, shape, strides]}``, in memory of their own."""
    found = {}
    with path.open("rb") as file:
        for name, (kind, start, count, offset, shape, strides) in table.items():
            values = torch.empty(count, dtype=TYPES[kind])
            file.seek(start)
            if count and file.readinto(values.view(torch.uint8).numpy().data) != values.nbytes:
                raise BadFile(f"{path} changed while it was read", "try again")
            found[name] = values.as_strided(shape, strides, offset).contiguous()
    return found
