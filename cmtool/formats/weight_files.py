"""Named tensors in files of torch.save and of safetensors, in one file or in shards of one.

Shards are named ``net-00001-of-00003.safetensors``, and an index beside them, ``net.safetensors.index.json``, says
which holds what. Any shard stands for all, and so does the index.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from cmtool.errors import BadFile, MissingInput
from cmtool.files.container import digest, names_in
from cmtool.files.safe_pickle.torch_files import read_torch_file, state_dict
from cmtool.files.sealed import read_tensors
from cmtool.formats.wrappers import JoinedNames, ends_with, mentions_weights

__all__ = ["digest_shards", "holds_weights", "is_index", "json_object", "read_weights", "shards"]

SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})(\..+)")
INDEX = ".index"
LARGEST, MOST = 1 << 24, 1000  # bytes of an index, and files that it may name


def json_object(path: Path, largest: int = LARGEST) -> dict[str, Any]:
    """A JSON object of UTF-8 or UTF-16, with or without a mark at its beginning; BadFile for anything else."""
    try:
        text = path.read_bytes() if path.stat().st_size <= largest else b""
        found = json.loads(text)
    except FileNotFoundError:
        raise MissingInput(f"there is no file {path}", "copy the whole folder") from None
    except (OSError, ValueError, RecursionError) as error:
        raise BadFile(f"{path} cannot be read as JSON", "copy or download it again") from error
    if not isinstance(found, dict):
        raise BadFile(f"{path} holds no names and values", "copy or download it again")
    return found


def is_index(path: Path) -> bool:
    return path.suffix == ".json" and INDEX in path.name


def shards(path: Path) -> list[Path]:
    """The files of which this is one or the index; itself where it is no part of several. MissingInput for a gap."""
    if is_index(path):
        table = json_object(path).get("weight_map")
        if not isinstance(table, dict) or not table:
            raise BadFile(f"{path} does not say which file holds which weights", "copy or download it again")
        names = {str(name) for name in table.values()}
        if len(names) > MOST or any(Path(name).name != name or name in ("", "..") for name in names):
            raise BadFile(f"{path} names files that are not beside it")
        return _whole(path, sorted(path.parent / name for name in names))
    parts = SHARD.fullmatch(path.name)
    if not parts or not 0 < int(parts[3]) <= MOST:
        return [path]
    start, _, count, end = parts.groups()
    every = [path.with_name(f"{start}-{i:05d}-of-{count}{end}") for i in range(1, int(count) + 1)]
    return _whole(path, every)


def _whole(path: Path, every: list[Path]) -> list[Path]:
    for one in every:
        if not one.is_file():
            raise MissingInput(f"there is no file {one}, which {path.name} needs", "copy all of its files")
    return every


def holds_weights(path: Path, *names: str) -> bool:
    """Whether a file, or the shards that it stands for, has these weights, whatever was put before their names."""
    try:
        files = shards(path)
        if len(files) == 1 and not is_index(path):
            found = names_in(path)
            return all(ends_with(found, name) for name in names) if found else mentions_weights(path, *names)
        found = [name for file in files for name in names_in(file)]
        return all(ends_with(found, n) if found else any(mentions_weights(file, n) for file in files) for n in names)
    except (BadFile, MissingInput):
        return False


def read_weights(path: Path) -> Any:
    """What the file, or all shards together, hold: tensors by their names, or what a trainer saved around them.

    BadFile for damaged files and for a name that stands in two.
    """
    files = shards(path)
    if len(files) == 1 and not is_index(path):
        return _read(files[0])
    whole = JoinedNames()
    for file in files:
        part = state_dict(file, _read(file))
        if whole.keys() & part.keys():
            raise BadFile(f"{file} is no part of {path.name}: it holds what another part holds")
        whole.update(part)
    return whole


def _read(path: Path) -> Any:
    return read_tensors(path) if names_in(path) else read_torch_file(path)


def digest_shards(path: Path) -> str:
    """The SHA-256 of a file, or of those of all its shards in their order."""
    files = shards(path)
    if len(files) == 1:
        return digest(files[0])
    return hashlib.sha256("".join(digest(file) for file in files).encode()).hexdigest()
