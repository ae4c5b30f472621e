"""Files of a folder that diffusers saved: JSON documents, and one file of weights."""

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from cmtool.errors import BadFile, MissingInput
from cmtool.files.envelope import holds
from cmtool.files.header import Header, parse
from cmtool.files.sealed import read_sealed, read_tensors
from cmtool.formats.archive import read, state_dict

__all__ = ["CONFIG", "INDEX", "KEY", "SCHEDULER", "UNET", "WEIGHTS", "class_of", "document", "tensors", "weights_of"]

INDEX, CONFIG, UNET = "model_index.json", "config.json", "unet"  # a pipeline has an index, and its network in a folder
SCHEDULER = "scheduler/scheduler_config.json"
WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
KEY = "cmtool.diffusers"  # of the metadata in which what we write keeps its header
LARGEST = 1 << 20  # bytes of a document


def document(path: Path) -> dict[str, Any]:
    """A JSON object; MissingInput where there is none, BadFile where it cannot be read."""
    try:
        text = path.read_bytes() if path.stat().st_size <= LARGEST else b""
        found = json.loads(text)
    except FileNotFoundError:
        raise MissingInput(f"there is no file {path}", "copy the whole folder that diffusers saved") from None
    except (OSError, ValueError, RecursionError) as error:
        raise BadFile(f"{path} cannot be read as JSON", "copy or download it again") from error
    if not isinstance(found, dict):
        raise BadFile(f"{path} holds no names and values", "copy or download it again")
    return found


def class_of(path: Path) -> str:
    """The class that a document describes; empty for what is no document of diffusers."""
    try:
        return str(document(path).get("_class_name", ""))
    except (BadFile, MissingInput):
        return ""


def weights_of(path: Path) -> Path:
    """The file with the weights in a folder of a pipeline or of a network; MissingInput where there is none."""
    folder = path / UNET if (path / INDEX).exists() else path
    for name in WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    raise MissingInput(f"there is no file {folder / WEIGHTS[0]}", "copy the whole folder that diffusers saved")


def tensors(path: Path) -> tuple[dict[str, Tensor], Header | None]:
    """The tensors of a file, and the header where we wrote it; BadFile for one that is damaged."""
    if path.suffix == ".bin":
        return state_dict(path, read(path)), None
    if holds(path, KEY):
        found, header = read_sealed(path, KEY)
        return state_dict(path, found), parse(path, header)
    return state_dict(path, read_tensors(path)), None
