"""``states/`` of a run: the training states that it can go on from, by the number of images that they have seen.

    states/00012000.safetensors   a sealed state (files/sealed.py)
    states/00012000.damaged       one that could not be read, kept for whoever wants to know why

The newest that is whole is the one to go on from. Runs of older versions have one only, ``state.safetensors``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from cmtool.errors import BadFile
from cmtool.files.atomic import write_file
from cmtool.files.sealed import NAME as OLD
from cmtool.files.sealed import load_state

__all__ = ["STATES", "StoredState", "drop_states_beyond", "keep_newest", "newest_state", "state_path", "stored_states"]

STATES = "states"


@dataclass(frozen=True)
class StoredState:
    """A state that was read whole."""

    path: Path
    tensors: dict[str, Tensor]
    scalars: dict[str, Any]


def state_path(folder: Path, images: int) -> Path:
    """Where the state at ``images`` is kept."""
    return folder / STATES / f"{images:08d}.safetensors"


def stored_states(folder: Path) -> list[Path]:
    """The states of a run, whole or not, the newest first."""
    found = [path for path in (folder / STATES).glob("*.safetensors") if path.stem.isdecimal()]
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
            state = StoredState(path, *load_state(path))
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
        path.unlink(missing_ok=True)


def drop_states_beyond(folder: Path, images: int) -> None:
    """Remove the states of a future that is not to come, the newest first."""
    for path in stored_states(folder):
        if int(path.stem) > images:
            path.unlink(missing_ok=True)
