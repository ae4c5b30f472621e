"""``states/`` of a run: the training states that it can go on from, by the number of images that they have seen.

    states/00012000.safetensors   a sealed state (files/sealed.py)
    states/00012000/              one in shards (files/sharded_states.py)
    states/00012000.damaged       one that could not be read, kept for whoever wants to know why

The newest that is whole is the one to go on from. Runs of older versions have one only, ``state.safetensors``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from cmtool.errors import BadFile
from cmtool.files.atomic import remove, write_file
from cmtool.files.sealed import NAME as OLD
from cmtool.files.sealed import load_state
from cmtool.files.sharded_states import ShardedState, open_sharded

__all__ = ["STATES", "StoredState", "drop_states_beyond", "keep_newest", "newest_state", "state_path", "stored_states"]

STATES = "states"


@dataclass(frozen=True)
class StoredState:
    """A state whose every bit is right; the tensors of one in shards are still to be read, from ``shards``."""

    path: Path
    tensors: dict[str, Tensor]
    scalars: dict[str, Any]
    shards: ShardedState | None = None

    @classmethod
    def read(cls, path: Path) -> "StoredState":
        """BadFile when it is damaged."""
        if path.is_dir():
            shards = open_sharded(path)
            return cls(path, {}, shards.scalars, shards)
        return cls(path, *load_state(path))


def state_path(folder: Path, images: int, sharded: bool = False) -> Path:
    """Where the state at ``images`` is kept: a file, or a folder of shards."""
    return folder / STATES / (f"{images:08d}" if sharded else f"{images:08d}.safetensors")


def stored_states(folder: Path) -> list[Path]:
    """The states of a run, whole or not, the newest first."""
    found = [path for path in (folder / STATES).glob("*") if path.stem.isdecimal()]
    found = [path for path in found if path.suffix == ("" if path.is_dir() else ".safetensors")]
    return sorted(found, key=lambda path: int(path.stem), reverse=True)


def newest_state(
    folder: Path, warn: Callable[[str], None], good: Callable[[StoredState], bool] = lambda state: True
) -> StoredState | None:
    """The newest state that is whole and ``good``; None where the run has none yet.

    ``warn`` hears of each that is damaged; it is put aside. BadFile where all of them are.
    """
    _adopt_old_layout(folder)
    broken: dict[Path, BadFile] = {}
    whole = 0
    for path in stored_states(folder):
        try:
            state = StoredState.read(path)
        except BadFile as error:
            broken[path] = error
            continue
        whole += 1
        if good(state):
            for other, error in broken.items():
                warn(f"{error.message}; an older state is used, {path.name}")
                with write_file(other):
                    other.replace(other.with_suffix(".damaged"))
            return state
    if broken and not whole:
        hint = "bring one back from a copy, or start a new run: its model can be trained further"
        raise BadFile(f"{folder} has no training state that is whole: {next(iter(broken.values())).message}", hint)
    return None


def _adopt_old_layout(folder: Path) -> None:
    """The one state that a run of an older version has becomes the first of ``states/``."""
    old = folder / OLD
    if not old.is_file() or stored_states(folder):
        return
    images = load_state(old)[1].get("images")
    if type(images) is not int or images < 0:
        raise BadFile(f"{old} is damaged: it does not say how many images it has seen", "start a new run")
    path = state_path(folder, images)
    with write_file(path):
        path.parent.mkdir(exist_ok=True)
        old.replace(path)


def keep_newest(folder: Path, keep: int) -> None:
    """Remove all but the newest ``keep`` states, the oldest first."""
    for path in reversed(stored_states(folder)[keep:]):
        remove(path)


def drop_states_beyond(folder: Path, images: int) -> None:
    """Remove the states of a future that is not to come, the newest first."""
    for path in stored_states(folder):
        if int(path.stem) > images:
            remove(path)
