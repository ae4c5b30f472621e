"""``wandb``: Weights & Biases, offline unless the user says otherwise."""

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from cmtool.errors import MissingAsset
from cmtool.files.atomic import write_bytes
from cmtool.loggers import LoggedRun
from cmtool.options.plugin_option import Option

__all__ = ["WandB", "wandb"]

FOLDER, ID = "wandb", "cmtool-id.txt"
MODES = ("online", "offline", "disabled", "shared")
# What would look for a network, or start other programs, where nobody has asked for it.
OFFLINE = {
    "x_disable_stats": True,
    "x_disable_meta": True,
    "x_disable_machine_info": True,
    "disable_git": True,
    "disable_code": True,
}


class WandB:
    """One W&B run, whose id is kept in the run directory, so that a resumed run continues it."""

    def __init__(self, run: LoggedRun, project: str, entity: str | None):
        mode = choose_mode()
        if mode == "offline":
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # read when wandb is imported
        import wandb

        own = {} if mode == "online" else OFFLINE
        settings: dict[str, Any] = {"console": "off", "silent": True, **own}
        self.image = wandb.Image
        self.run = wandb.init(
            project=project,
            entity=entity,
            name=run.folder.resolve().name,
            id=run_id(run.folder / FOLDER),
            resume="allow" if mode == "online" else None,
            mode=mode,
            dir=str(run.folder),
            job_type=run.command,
            config=dict(run.options),
            settings=wandb.Settings(**settings),
        )

    def log(self, images: int, values: Mapping[str, float]) -> None:
        self.run.log({"images": images, **values}, step=images)

    def draw(self, images: int, name: str, picture: np.ndarray) -> None:
        pixels = picture.transpose(1, 2, 0)
        self.run.log({name: self.image(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels)}, step=images)

    def close(self) -> None:
        self.run.finish()


def choose_mode() -> Any:
    """``WANDB_MODE`` where it is set, else offline: nothing is sent that nobody asked for."""
    mode = os.environ.get("WANDB_MODE", "offline")
    return mode if mode in MODES else "offline"


def run_id(folder: Path) -> str:
    """The W&B id of the run, made when it is asked for the first time."""
    path = folder / ID
    if path.is_file() and (known := path.read_text("ascii", "replace").strip()).isalnum() and len(known) <= 64:
        return known
    made = secrets.token_hex(4)
    write_bytes(path, f"{made}\n".encode())
    return made


def wandb(
    run: LoggedRun,
    *,
    project: Annotated[str, Option("the W&B project")] = "cmtool",
    entity: Annotated[str | None, Option("the W&B user or team; yours unless it is given")] = None,
) -> WandB:
    """Weights & Biases: figures, sample grids and options, in the folder ``wandb`` of the run.

    Use: to collect runs on a W&B server. Nothing is sent unless ``WANDB_MODE=online`` is set: what is written can be
    sent later with ``wandb sync``. A resumed run continues the same W&B run. Needs ``cmtool[wandb]``.
    """
    try:
        return WandB(run, project, entity)
    except ImportError as error:
        raise MissingAsset(
            "the logger 'wandb' needs the package wandb, which is not installed", "pip install 'cmtool[wandb]'"
        ) from error
