"""Files of a folder that diffusers saved: JSON documents, and weights in one file or in shards."""

from pathlib import Path
from typing import Any

from torch import Tensor

from cmtool.errors import BadFile, MissingInput
from cmtool.files.container import holds
from cmtool.files.file_kinds import refuse_other_kinds
from cmtool.files.header import Header, parse
from cmtool.files.safe_pickle.torch_files import state_dict
from cmtool.files.sealed import read_sealed
from cmtool.formats.weight_files import digest_shards, json_object, read_weights, shards
from cmtool.formats.wrappers import strip_prefixes, unwrap

__all__ = [
    "CONFIG",
    "INDEX",
    "KEY",
    "SCHEDULER",
    "UNET",
    "WEIGHTS",
    "class_of",
    "digest_folder",
    "document",
    "folder_of",
    "tensors",
    "weights_of",
]

INDEX, CONFIG, UNET = "model_index.json", "config.json", "unet"  # a pipeline has an index, and its network in a folder
SCHEDULER = "scheduler/scheduler_config.json"
WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
# What else it may be called, where there is none of those: shards without an index, and variants such as "fp16".
VARIANTS = ("diffusion_pytorch_model*.safetensors", "diffusion_pytorch_model*.bin")
STEM = "diffusion_pytorch_model"
NAMES = ("conv_in.weight", "conv_out.weight")  # of every UNet2DModel
KEY = "cmtool.diffusers"  # of the metadata in which what we write keeps its header
LARGEST = 1 << 20  # bytes of a document


def document(path: Path) -> dict[str, Any]:
    """A JSON object; MissingInput where there is none, BadFile where it cannot be read."""
    refuse_other_kinds(path)
    return json_object(path, LARGEST)


def class_of(path: Path) -> str:
    """The class that a document describes; empty for what is no document of diffusers."""
    try:
        return str(document(path).get("_class_name", ""))
    except (BadFile, MissingInput):
        return ""


def folder_of(path: Path) -> Path:
    """The folder itself, or that in which a file of it lies which was named: its weights, or one of its documents."""
    named = path.name in (INDEX, CONFIG) or path.name.startswith(STEM)
    return path.parent if named and path.is_file() else path


def weights_of(path: Path) -> Path:
    """The file with the weights in a folder of a pipeline or of a network, or the index of its shards.

    Where there are only variants, such as "fp16", it is the largest of them; a file that was named is itself.
    MissingInput where there is none.
    """
    if path.is_file() and path.name.startswith(STEM):
        return path
    path = folder_of(path)
    folder = path / UNET if (path / INDEX).exists() else path
    for name in WEIGHTS:
        for file in (folder / name, folder / f"{name}.index.json"):
            if file.is_file():
                return file
    found = [file for pattern in VARIANTS for file in folder.glob(pattern) if file.is_file()]
    if not found:
        raise MissingInput(f"there is no file {folder / WEIGHTS[0]}", "copy the whole folder that diffusers saved")
    return max(sorted(found), key=lambda file: sum(one.stat().st_size for one in shards(file)))


def digest_folder(path: Path) -> str:
    """The SHA-256 of all weights in a folder, or of those that were named."""
    return digest_shards(weights_of(path))


def tensors(path: Path) -> tuple[dict[str, Tensor], Header | None]:
    """The tensors of a file or of all shards, and the header where we wrote it; BadFile where they are damaged."""
    for file in shards(path):
        refuse_other_kinds(file)
    if holds(path, KEY):
        found, header = read_sealed(path, KEY)
        return state_dict(path, found), parse(path, header)
    return strip_prefixes(unwrap(path, read_weights(path), NAMES).tensors), None
