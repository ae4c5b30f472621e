"""Tensors and a JSON document in one sealed file, and the training state that is kept in one.

Written atomically, and read only when every bit is right.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from cmtool.errors import BadFile, encodable, report_damage
from cmtool.files.atomic import replace_folder, write_file
from cmtool.files.container import add_seal, pack, read_envelope, verify

__all__ = [
    "FORMAT",
    "KEY",
    "NAME",
    "load_state",
    "read_sealed",
    "read_tensors",
    "save_state",
    "table_of",
    "write_sealed",
]


DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def write_sealed(path: str | Path, tensors: Mapping[str, Tensor], key: str, document: dict[str, Any]) -> str:
    """Write ``tensors``, and ``document`` under the metadata ``key``; return the seal. WriteFailed if it cannot be."""
    # the widest first, so that every tensor starts at a multiple of its element size
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    head = pack(table_of({name: tensors[name] for name in names}), key, document)
    buffers = [_bytes(tensors[name]) for name in names]
    head, seal = add_seal(head, buffers)
    with replace_folder(path) as file, write_file(path):
        for part in (head, *buffers):
            file.write(part)
    return seal


def table_of(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The table of ``tensors`` that lie one behind the other, whose values are not looked at."""
    table, offset = {}, 0
    for name, tensor in tensors.items():
        end = offset + tensor.numel() * tensor.element_size()
        table[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    return table


def read_sealed(path: str | Path, key: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors, mapped from the file, and the document; MissingInput or BadFile where they are not whole."""
    envelope = read_envelope(path, key)
    verify(path, envelope)
    return read_tensors(path), envelope.document


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """The tensors of any safetensors file, mapped from it; BadFile when its table does not fit them."""
    with report_damage(path), open(path, "rb") as file:
        # the library takes no name that is no Unicode, and the system knows an open file by its number, too
        name = str(path)
        return load_file(name if encodable(name) == name else f"/proc/self/fd/{file.fileno()}")


def _bytes(tensor: Tensor) -> Any:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()


FORMAT = 2  # 1 lacks the counters of a rollback and what stands in scalars besides: all have defaults
KEY = "cmtool.state"
NAME = "state.safetensors"


def save_state(place: str | Path, tensors: Mapping[str, Tensor], scalars: dict[str, Any]) -> None:
    """Write tensors, and what JSON can hold, to a file or to ``state.safetensors`` in a folder; whole or not at all."""
    write_sealed(_file(place), tensors, KEY, {"format": FORMAT, "scalars": scalars})


def load_state(place: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What ``save_state`` wrote, bit for bit, on the CPU; MissingInput when it is not there, BadFile when damaged."""
    path = _file(place)
    tensors, document = read_sealed(path, KEY)
    if document.get("format") not in (1, FORMAT) or not isinstance(document.get("scalars"), dict):
        raise BadFile(f"{path} is a training state of another version of cmtool", "start a new run")
    # mapped memory is unaligned for the fastest kernels, and at the mercy of whoever rewrites the file
    return {name: tensor.clone() for name, tensor in tensors.items()}, document["scalars"]


def _file(place: str | Path) -> Path:
    place = Path(place)
    return place / NAME if place.is_dir() else place
