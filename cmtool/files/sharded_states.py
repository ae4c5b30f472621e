"""Training states in shards: a folder in which each rank has written its part of the tensors.

    states/00012000/shard-00001-model-00001-of-00001.safetensors   of the first rank, and so on
    states/00012000/manifest.json                                  {"format", "sha256", "scalars", "files"}

The shards are those of ``torch.distributed.checkpoint`` in the form of safetensors, which say themselves where in a
tensor a part lies: no pickle is written or read. The manifest has what JSON can hold of the state, and length and
SHA-256 of every shard; its own seal is the SHA-256 of its text with the 64 characters of the seal read as zeros. The
folder gets its name when all of it is on the disk. Any number of ranks can read it, one process included.
"""

import json
import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor

from cmtool.core.denoiser import Denoiser
from cmtool.errors import (
    BadFile,
    Hint,
    Setting,
    UsageError,
    WriteFailed,
    check_regular,
    report_damage,
    unknown_name,
)
from cmtool.files.atomic import PREFIX, make_folder, remove, sync_folder, write_bytes, write_file
from cmtool.files.checkpoint import build_model
from cmtool.files.container import BLANK, add_seal, digest
from cmtool.files.header import parse
from cmtool.files.model_format import LoadedModel
from cmtool.text_files import dump_json

__all__ = [
    "MANIFEST",
    "ShardedState",
    "fill_tensors",
    "is_sharded",
    "load_sharded",
    "open_average",
    "open_sharded",
    "save_sharded",
]

FORMAT = 1
MANIFEST = "manifest.json"
LARGEST = 1 << 23  # bytes of a manifest


@dataclass(frozen=True)
class ShardedState:
    """A folder whose every bit was seen to be right: its scalars, and its tensors as shapes without values."""

    folder: Path
    scalars: dict[str, Any]
    tensors: dict[str, Tensor]


def is_sharded(path: Path) -> bool:
    """Whether this is a state in shards, whole or not: the folder has a manifest, or a shard."""
    return path.is_dir() and ((path / MANIFEST).exists() or any(path.glob("shard-*.safetensors")))


def save_sharded(folder: Path, tensors: Mapping[str, Tensor], scalars: dict[str, Any]) -> None:
    """Write the state of all ranks, in the default group; each calls this, with its part of the same tensors.

    What is not sharded is taken from one rank, and so are the scalars. WriteFailed on all ranks when one cannot write:
    then nothing has changed.
    """
    rank, temporary = dist.get_rank(), folder.with_name(f"{PREFIX}{folder.name}")
    _together(folder, lambda: _make_room(temporary) if rank == 0 else None)
    writer = _storage().HuggingFaceStorageWriter(str(temporary), save_distributed=True)
    _together(folder, lambda: _checkpoints().save(dict(tensors), storage_writer=writer))
    files = _together(folder, lambda: _seals(temporary.glob(f"shard-{rank + 1:05d}-*.safetensors")))
    _together(folder, lambda: _finish(temporary, folder, files, scalars) if rank == 0 else None)


def _checkpoints() -> Any:
    """``torch.distributed.checkpoint``: to import it takes a second, and few runs are sharded."""
    return import_module("torch.distributed.checkpoint")


def _storage() -> Any:
    """What writes and reads safetensors for ``torch.distributed.checkpoint``; older versions of torch have none."""
    try:
        return import_module("torch.distributed.checkpoint.hf_storage")
    except ImportError as error:
        text = f"training states in shards need a newer torch than {torch.__version__}"
        raise UsageError(text, Hint("use {}", Setting("parallel", "ddp"))) from error


def _make_room(temporary: Path) -> None:
    """An empty folder, where a killed writer may have left another one."""
    with write_file(temporary):
        remove(temporary)
    make_folder(temporary)


def _finish(temporary: Path, folder: Path, files: list[dict[str, Any]], scalars: dict[str, Any]) -> None:
    """The manifest, and the name of the folder."""
    every = {name: facts for each in files for name, facts in each.items()}
    document = {"format": FORMAT, "sha256": BLANK, "scalars": scalars, "files": every}
    text, _ = add_seal(dump_json(document).encode(), [])
    write_bytes(temporary / MANIFEST, text)
    with write_file(folder):
        remove(folder)
        temporary.replace(folder)
        sync_folder(folder.parent)


def _together(folder: Path, work: Callable[[], Any]) -> list[Any]:
    """What ``work`` gives on each rank, on all of them; WriteFailed on all where one cannot write.

    Between processes of one run on gloo, and never from a file.
    """
    mine, failure = None, None
    try:
        mine = work()
    except (OSError, WriteFailed, _checkpoints().CheckpointException) as error:
        failure = _cause(error)
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, (mine, failure and (failure.errno, failure.strerror)))
    failures = [reason for _, reason in found if reason]
    if failures:
        if dist.get_rank() == 0:
            with suppress(OSError):
                remove(folder.with_name(f"{PREFIX}{folder.name}"))
        with write_file(folder):
            raise OSError(*failures[0])
    return [each for each, _ in found]


def _cause(error: BaseException) -> OSError:
    """What the system said; a fault of ours passes."""
    if isinstance(error, OSError):
        return error
    if isinstance(error, WriteFailed) and isinstance(error.__cause__, OSError):
        return error.__cause__
    if isinstance(error, _checkpoints().CheckpointException):
        reasons = [reason for reason, _ in cast(Any, error).failures.values() if isinstance(reason, OSError)]
        if reasons:
            return reasons[0]
    raise error


def _seals(paths: Iterable[Path]) -> dict[str, Any]:
    return {path.name: {"bytes": path.stat().st_size, "sha256": digest(path)} for path in paths}


def open_sharded(folder: Path) -> ShardedState:
    """Verify a state; BadFile when a bit of it is wrong, or a shard is not there or one too many."""
    manifest = _manifest(folder)
    there = sorted(path.name for path in folder.iterdir() if path.name != MANIFEST)
    with report_damage(folder):
        files = cast(dict[str, dict[str, Any]], manifest["files"])
        if there != sorted(files):
            odd = next(name for name in sorted({*there} ^ {*files}))
            raise BadFile(f"{folder} is damaged: {odd} is {'one too many' if odd in there else 'not there'}")
        for name, facts in files.items():
            path = folder / name
            if path.stat().st_size != facts["bytes"] or digest(path) != facts["sha256"]:
                raise BadFile(f"{path} is damaged: its checksum is wrong", "copy or make it again")
        return ShardedState(folder, dict(manifest["scalars"]), _shapes(folder))


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    check_regular(path)
    if not path.is_file():
        raise BadFile(f"{folder} is damaged: its {MANIFEST} is not there")
    with report_damage(path):
        with path.open("rb") as file:
            text = file.read(LARGEST).decode()
        found = json.loads(text)
        seal = found["sha256"]
        if add_seal(text.replace(seal, BLANK, 1).encode(), [])[1] != seal:
            raise BadFile(f"{path} is damaged: its checksum is wrong", "copy or make it again")
    if found.get("format") != FORMAT:
        raise BadFile(f"{folder} is a training state of another version of cmtool", "start a new run")
    return found


def _shapes(folder: Path) -> dict[str, Tensor]:
    """Tensors without memory; ValueError where a part is missing, so that no shape is larger than the files."""
    found = {}
    for name, about in _storage().HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata.items():
        if sum(math.prod(chunk.sizes) for chunk in about.chunks) != math.prod(about.size):
            raise ValueError(f"a part of {name} is missing")
        found[name] = torch.empty(about.size, dtype=about.properties.dtype, device="meta")
    return found


def fill_tensors(state: ShardedState, tensors: Mapping[str, Tensor]) -> None:
    """Read values into tensors, whole or sharded over any number of ranks; BadFile where they do not fit."""
    with report_damage(state.folder, "is not the state of this run"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled, unavailable or uninitialized")
        reader = _storage().HuggingFaceStorageReader(str(state.folder))
        try:
            # each rank plans for itself what it reads
            _checkpoints().load(dict(tensors), storage_reader=reader, no_dist=True)
        except _checkpoints().CheckpointException as error:  # no Exception of Python
            raise ValueError(*(str(reason) for reason, _ in error.failures.values())) from error


def load_sharded(state: ShardedState, prefix: str = "") -> dict[str, Tensor]:
    """The tensors whose names begin with ``prefix``, whole, in the memory of this process."""
    wanted = {name: shape for name, shape in state.tensors.items() if name.startswith(prefix)}
    tensors = {name: torch.zeros_like(shape, device="cpu") for name, shape in wanted.items()}
    fill_tensors(state, tensors)
    return tensors


def open_average(folder: Path, ema: str | None = None) -> LoadedModel[Denoiser]:
    """The model of an EMA in a state, such as "power:0.05", else of the first; its shards are merged.

    The scalar "models" has the header of each by what its tensors' names begin with. UsageError for an EMA that the run
    does not keep; BadFile when the state is damaged.
    """
    state = open_sharded(folder)
    with report_damage(folder):
        known = {document["average"]["ema"]: (prefix, document) for prefix, document in state.scalars["models"].items()}
        prefix, document = next(iter(known.values())) if ema is None else known.get(ema, ("", {}))
    if not prefix:
        raise unknown_name("EMA", ema or "", known)
    prefix += "net."
    weights = {name.removeprefix(prefix): value for name, value in load_sharded(state, prefix).items()}
    return build_model(folder, parse(folder, document), weights)
