"""The state of a training run, from which it goes on as if it had never stopped."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from cmtool.errors import BadFile
from cmtool.files.sealed import read_sealed, write_sealed

__all__ = ["FORMAT", "KEY", "NAME", "load_state", "save_state"]

FORMAT = 1
KEY = "cmtool.state"
NAME = "state.safetensors"


def save_state(place: str | Path, tensors: Mapping[str, Tensor], scalars: dict[str, Any]) -> None:
    """Write tensors, and what JSON can hold, to a file or to ``state.safetensors`` in a folder; whole or not at all."""
    write_sealed(_file(place), tensors, KEY, {"format": FORMAT, "scalars": scalars})


def load_state(place: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What ``save_state`` wrote, bit for bit, on the CPU; MissingInput when it is not there, BadFile when damaged."""
    path = _file(place)
    tensors, document = read_sealed(path, KEY)
    if document.get("format") != FORMAT or not isinstance(document.get("scalars"), dict):
        raise BadFile(f"{path} is a training state of another version of cmtool", "start a new run")
    # mapped memory is unaligned for the fastest kernels, and at the mercy of whoever rewrites the file
    return {name: tensor.clone() for name, tensor in tensors.items()}, document["scalars"]


def _file(place: str | Path) -> Path:
    place = Path(place)
    return place / NAME if place.is_dir() else place
