"""Weights that are too large to ship: where they are looked for, and proof that they are the right ones.

Nothing is downloaded here (``cmtool fetch`` does, when asked), and nothing is looked for in the folder of temporary
files, where anybody may plant a file. Who needs a file declares it as an ``Asset`` under the entry-point group
``cmtool.assets``, by the name that ``fetch`` takes.
"""

import hashlib
import os
import shlex
from dataclasses import dataclass
from pathlib import Path

import torch

from cmtool.errors import Advice, BadFile, Hint, MissingAsset, MissingInput, Run, Setting, UsageError
from cmtool.user_paths import cache_folder, expand_home

__all__ = ["Asset", "find", "folders", "locate", "own_folder", "verify"]


@dataclass(frozen=True)
class Asset:
    """A published file: its names, its size in bytes, its full sha256, where it is published and what else helps.

    ``name`` is what ``cmtool fetch`` calls it; ``also`` are other names under which the same bytes are kept.
    """

    name: str
    filename: str
    size: int
    sha256: str
    url: str
    otherwise: Advice
    also: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.filename} ({self.size:,} bytes, sha256 {self.sha256})"

    def fetching(self) -> Hint:
        """What a person runs on a machine with internet."""
        place = next(iter(folders()), Path()) / self.filename
        curl = f"curl -L --create-dirs -o {shlex.quote(str(place))} {self.url}"
        return Hint("{}, or {}", Run("fetch", self.name), curl)


def folders() -> list[Path]:
    """$CMTOOL_ASSETS, the user's cache of cmtool and torch hub's checkpoints, in the order they are searched.

    The last two are missing for a user without a home.
    """
    own = [Path(expand_home(os.environ["CMTOOL_ASSETS"]))] if os.environ.get("CMTOOL_ASSETS") else []
    cache, hub = cache_folder(), torch.hub.get_dir()
    return [*own, *([cache / "assets"] if cache else []), *([] if hub[0] == "~" else [Path(hub) / "checkpoints"])]


def own_folder() -> Path:
    """Where what is fetched goes; UsageError for a user without a home who has named none."""
    found = folders()
    if not found:
        raise UsageError(
            "there is no home folder to keep the file in",
            Hint("name a folder: {} or $CMTOOL_ASSETS", Setting("folder")),
        )
    return found[0]


def locate(asset: Asset, given: str | Path | None = None) -> Path:
    """The path of the verified file: ``given``, or the first of ``folders()`` that has it.

    MissingInput when ``given`` is not there, MissingAsset when no folder has the file, BadFile when its sha256 is
    another one.
    """
    path = _find_given(Path(expand_home(given)), asset) if given is not None else _find(asset)
    verify(path, asset)
    return path


def find(asset: Asset) -> Path | None:
    """The first file of ``folders()`` that has the asset's name; its contents are not looked at."""
    paths = (folder / name for folder in folders() for name in (asset.filename, *asset.also))
    return next((path for path in paths if path.is_file()), None)


def verify(path: Path, asset: Asset) -> None:
    """BadFile unless the file is the published one."""
    with open(path, "rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    if actual != asset.sha256:
        raise BadFile(
            f"{path} is not the published {asset.filename}: its sha256 is {actual}, not {asset.sha256}",
            Hint("fetch it again: {}", asset.fetching()),
        )


def _find_given(path: Path, asset: Asset) -> Path:
    if not path.is_file():
        raise MissingInput(f"there is no file {path}", Hint("{} comes with: {}", str(asset), asset.fetching()))
    return path


def _find(asset: Asset) -> Path:
    path = find(asset)
    if path is None:
        raise MissingAsset(
            f"{asset} is in none of {', '.join(map(str, folders())) or '$CMTOOL_ASSETS'}",
            Hint("on a machine with internet: {}; {}", asset.fetching(), asset.otherwise),
        )
    return path
