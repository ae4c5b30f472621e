"""The outside of our files, without torch: safetensors whose metadata holds a JSON document and a seal.

    8 bytes    length of the table, little endian
    table      JSON: {"__metadata__": {"cmtool": "<our document as JSON>", ...}, "name": {"dtype", "shape", ...}, ...}
    data       the tensors

The document's ``sha256`` is the seal: the SHA-256 of the whole file with these 64 characters read as zeros. A bit that
flips anywhere, in the length, the table, the padding, the seal or the data, breaks it.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from cmtool.errors import BadFile, MissingInput, UsageError, check_regular, closest, encodable

__all__ = [
    "BLANK",
    "Envelope",
    "add_seal",
    "digest",
    "holds",
    "is_ours",
    "metadata",
    "names_in",
    "pack",
    "read_envelope",
    "verify",
]

LIMIT = 1 << 23  # bytes of a table; those of the largest published networks have less than a hundredth
MOST = 150_000  # dictionaries and lists in it: a tensor has three
BLANK = "0" * 64
CHUNK = 1 << 20
# Where each puts its document.
KINDS = {
    "cmtool": "checkpoint",
    "cmtool.state": "training state",
    "cmtool.diffusers": "network for diffusers",
}


@dataclass(frozen=True)
class Envelope:
    """What stands before the data: our ``document``, the ``table`` of tensors, and the bytes of both, ``head``."""

    document: dict[str, Any]
    table: dict[str, Any]
    head: bytes


def pack(table: dict[str, Any], key: str, document: dict[str, Any]) -> bytes:
    """The bytes before the data, with the document stored under ``key`` and its seal left blank.

    Text that UTF-8 cannot hold is written out. UsageError for more than is ever read back.
    """
    metadata = {"format": "pt", key: json.dumps(_encodable({"sha256": BLANK, **document}))}
    raw = json.dumps({"__metadata__": metadata, **table}, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    if len(raw) > LIMIT or _parts(raw) > MOST:
        raise UsageError(
            f"what a {KINDS[key]} says of itself would take {len(raw):,} bytes, and {LIMIT:,} are read",
            "fewer classes, or shorter names of classes, need less",
        )
    return len(raw).to_bytes(8, "little") + raw


def add_seal(head: bytes, data: Iterable[Any]) -> tuple[bytes, str]:
    """``head`` with its blank seal filled in, and the seal, for a head and the buffers that follow it."""
    sha = hashlib.sha256(head)
    for buffer in data:
        sha.update(buffer)
    return head.replace(BLANK.encode(), sha.hexdigest().encode(), 1), sha.hexdigest()


def read_envelope(path: str | Path, key: str) -> Envelope:
    """Read the table and the document stored under ``key``; the data is not read and the seal not checked.

    MissingInput when there is no such file, BadFile when it is no safetensors file or holds no such document.
    """
    path = Path(path)
    head, raw = _table(path)
    texts = raw.pop("__metadata__", None)
    text = texts.get(key) if isinstance(texts, dict) else None
    if not isinstance(text, str):
        raise BadFile(f"{path} is a safetensors file, but not a {KINDS[key]} of cmtool", _other(texts))
    document = _json(path, text)
    if not re.fullmatch("[0-9a-f]{64}", str(document.get("sha256"))):
        raise _damage(path, "its checksum is missing")
    return Envelope(document, raw, head)


def metadata(path: str | Path) -> dict[str, Any]:
    """The texts that whoever wrote a safetensors file put before its data; MissingInput or BadFile as above."""
    texts = _table(Path(path))[1].get("__metadata__")
    return texts if isinstance(texts, dict) else {}


def is_ours(path: str | Path) -> bool:
    """Whether a safetensors file has a document of cmtool, of any kind; MissingInput or BadFile as above."""
    return bool(KINDS.keys() & metadata(path).keys())


def names_in(path: str | Path) -> list[str]:
    """The names of a safetensors file's tensors; empty for what is none."""
    try:
        return [name for name in _table(Path(path))[1] if name != "__metadata__"]
    except (BadFile, MissingInput):
        return []


def holds(path: str | Path, key: str) -> bool:
    """Whether a file is safetensors with a document stored under ``key``, as far as its table can be read."""
    try:
        read_envelope(path, key)
    except (BadFile, MissingInput):
        return False
    return True


def verify(path: str | Path, envelope: Envelope) -> None:
    """Read the whole file and compare it with its seal; BadFile when a single bit differs."""
    seal = envelope.document["sha256"].encode()
    if envelope.head.count(seal) != 1:
        raise _damage(path, "its checksum is not in one place")
    sha = hashlib.sha256(envelope.head.replace(seal, BLANK.encode()))
    with _open(Path(path)) as file:
        file.seek(len(envelope.head))
        while chunk := file.read(CHUNK):
            sha.update(chunk)
    if sha.hexdigest().encode() != seal:
        raise _damage(path, "its contents do not match its checksum")


def digest(path: str | Path) -> str:
    """The SHA-256 of a file, as ``sha256sum`` prints it."""
    sha = hashlib.sha256()
    with _open(Path(path)) as file:
        while chunk := file.read(CHUNK):
            sha.update(chunk)
    return sha.hexdigest()


def _table(path: Path) -> tuple[bytes, dict[str, Any]]:
    """What stands before the data, as bytes and as JSON."""
    with _open(path) as file:
        head = _head(path, file)
    return head, _json(path, head[8:])


def _open(path: Path) -> BinaryIO:
    check_regular(path)
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise MissingInput(f"there is no file {path}", _nearby(path)) from None
    except IsADirectoryError:
        raise MissingInput(f"{path} is a folder, not a file", _inside(path)) from None
    except (OSError, ValueError) as error:
        raise MissingInput(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error


def _nearby(path: Path) -> str | None:
    if not path.parent.is_dir():
        return f"there is no folder {path.parent} either"
    near = closest(path.name, os.listdir(path.parent)) if os.access(path.parent, os.R_OK) else None
    return f"did you mean {path.parent / near}?" if near else None


def _inside(path: Path) -> str | None:
    found = sorted(path.glob("*.safetensors"))
    return f"did you mean {found[0]}?" if found else None


def _other(metadata: Any) -> str:
    found = [kind for key, kind in KINDS.items() if isinstance(metadata, dict) and key in metadata]
    return f"it is a {found[0]}" if found else "it was written by another program"


def _head(path: Path, file: BinaryIO) -> bytes:
    size = os.fstat(file.fileno()).st_size
    prefix = file.read(8)
    length = int.from_bytes(prefix, "little")
    if len(prefix) < 8 or not 2 <= length <= min(LIMIT, size - 8):
        raise BadFile(f"{path} is not a safetensors file, or is cut short")
    table = file.read(length)
    if _parts(table) > MOST:
        raise BadFile(f"{path} has a table of more tensors than a network")
    return prefix + table


def _parts(table: bytes) -> int:
    return table.count(b"{") + table.count(b"[")


def _encodable(value: Any) -> Any:
    if isinstance(value, dict):
        return {_encodable(key): _encodable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_encodable(item) for item in value]
    return encodable(value) if isinstance(value, str) else value


def _json(path: Path, raw: bytes | str) -> dict[str, Any]:
    try:
        found = json.loads(raw if isinstance(raw, str) else raw.decode(), object_pairs_hook=_unique)
        json.dumps(found, ensure_ascii=False).encode()  # half a surrogate pair parses, but could never be printed
    except (ValueError, RecursionError, MemoryError):
        found = None
    if not isinstance(found, dict):
        raise BadFile(f"{path} is not a safetensors file, or is damaged")
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands there twice")
    return found


def _damage(path: str | Path, reason: str) -> BadFile:
    return BadFile(f"{path} is damaged: {reason}", "copy or make it again")
