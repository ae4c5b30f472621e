"""Weights that are too large to ship: where they are looked for, and proof that they are the right ones.

Nothing is ever downloaded, and nothing is looked for in the folder of temporary files, where anybody may plant a file.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from platformdirs import user_cache_path

from cmtool.errors import BadFile, MissingAsset, MissingInput

__all__ = ["Asset", "folders", "locate"]


@dataclass(frozen=True)
class Asset:
    """A published file: its name, its size in bytes, its full sha256, where it is published and what else helps."""

    filename: str
    size: int
    sha256: str
    url: str
    otherwise: str

    def __str__(self) -> str:
        return f"{self.filename} ({self.size:,} bytes, sha256 {self.sha256})"

    def fetching(self) -> str:
        """The command that a person runs on a machine with internet."""
        return f"curl -L --create-dirs -o '{folders()[0] / self.filename}' {self.url}"


def folders() -> list[Path]:
    """$CMTOOL_ASSETS, the user's cache of cmtool and torch hub's checkpoints, in the order they are searched."""
    own = [Path(os.environ["CMTOOL_ASSETS"])] if os.environ.get("CMTOOL_ASSETS") else []
    cache = user_cache_path("cmtool", appauthor=False) / "assets"
    return [*own, cache, Path(torch.hub.get_dir()) / "checkpoints"]


def locate(asset: Asset, given: str | Path | None = None) -> Path:
    """The path of the verified file: ``given``, or the first of ``folders()`` that has it.

    MissingInput when ``given`` is not there, MissingAsset when no folder has the file, BadFile when its sha256 is
    another one.
    """
    path = _given(Path(given), asset) if given is not None else _found(asset)
    with open(path, "rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    if actual != asset.sha256:
        raise BadFile(
            f"{path} is not the published {asset.filename}: its sha256 is {actual}, not {asset.sha256}",
            f"fetch it again: {asset.fetching()}",
        )
    return path


def _given(path: Path, asset: Asset) -> Path:
    if not path.is_file():
        raise MissingInput(f"there is no file {path}", f"{asset} comes with: {asset.fetching()}")
    return path


def _found(asset: Asset) -> Path:
    looked = [folder / asset.filename for folder in folders()]
    for path in looked:
        if path.is_file():
            return path
    raise MissingAsset(
        f"{asset} is in none of {', '.join(str(path.parent) for path in looked)}",
        f"on a machine with internet: {asset.fetching()}; {asset.otherwise}",
    )
