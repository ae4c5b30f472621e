"""Files of ``torch.save``: a zip of a pickle and of the bytes of tensors, read without running anything in them.

The pickle goes through torch's reader of weights, which makes tensors and plain containers and calls nothing else. Only
entries that are stored as they are, and in sum no larger than the file, are accepted, so that no small file fills the
memory; and every entry is compared with its checksum.
"""

import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cmtool.errors import BadFile

__all__ = ["mentions", "pickled", "read", "state_dict"]

FOLDER = 0x10  # an attribute of zip entries: torch reads nothing of them, and hands out memory as it finds it
MOST = 1 << 26  # bytes of a pickle; those of the largest published networks have less than a hundredth


def pickled(path: Path) -> bytes:
    """The pickle in a file of ``torch.save``, as bytes; empty for every other file."""
    try:
        with zipfile.ZipFile(path) as file:
            (entry,) = [entry for entry in file.infolist() if entry.filename.endswith("/data.pkl")]
            plain = entry.compress_type == zipfile.ZIP_STORED and entry.file_size <= MOST
            return file.read(entry) if plain else b""
    except (OSError, ValueError, EOFError, RuntimeError, NotImplementedError, zipfile.BadZipFile):
        return b""


def mentions(text: bytes, *names: str) -> bool:
    """Whether a pickle holds each of these as a whole string, not as a part of another one."""
    raw = [name.encode() for name in names]
    return all(len(n).to_bytes(4, "little") + n in text or b"\x8c" + bytes([len(n)]) + n in text for n in raw)


def read(path: Path) -> Any:
    """What ``torch.save`` wrote, on the CPU; BadFile when it is damaged or holds more than tensors and plain values."""
    check(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # there is no end to what a hostile file can make a reader raise
        raise BadFile(
            f"{path} is damaged, or holds more than weights, which cmtool does not run",
            "get it again from whoever made it",
        ) from error


def check(path: Path) -> None:
    """BadFile unless every entry of the zip is stored plainly, as large as it says, and what its checksum says."""
    try:
        with zipfile.ZipFile(path) as file:
            entries = file.infolist()
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                raise BadFile(f"{path} is compressed, which torch.save does not do", "save it again with torch.save")
            fits = sum(entry.file_size for entry in entries) <= path.stat().st_size
            files = not any(entry.external_attr & FOLDER for entry in entries)
            whole = fits and files and file.testzip() is None
    except (OSError, ValueError, EOFError, RuntimeError, NotImplementedError, zipfile.BadZipFile):
        whole = False
    if not whole:
        raise BadFile(f"{path} is damaged: its contents do not match its checksums", "copy or download it again")


def state_dict(path: Path, found: Any) -> dict[str, Tensor]:
    """``found`` as named dense tensors of floating point; BadFile when it is anything else."""
    if not isinstance(found, dict) or not all(isinstance(name, str) and plain(value) for name, value in found.items()):
        raise BadFile(f"{path} holds more than named tensors, and cannot be a network alone")
    if sum(value.numel() * value.element_size() for value in found.values()) > path.stat().st_size:
        raise BadFile(f"{path} has tensors that are larger than the file")
    return dict(found)


def plain(value: Any) -> bool:
    return isinstance(value, Tensor) and value.layout is torch.strided and value.is_floating_point()
