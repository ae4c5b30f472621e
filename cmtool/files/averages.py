"""The averages of a run that stand beside its checkpoint, each a checkpoint of its own; known without torch.

ema/NAME.safetensors            a further average as it is now, such as half-life-6000
ema/NAME-00012000.safetensors   a power average as it was at 12,000 images
"""

import re
from pathlib import Path

from cmtool.files.atomic import sweep
from cmtool.files.header import Header, read_header
from cmtool.files.runs import CHECKPOINT

__all__ = ["found", "place", "rewind"]

FOLDER = "ema"


def place(folder: Path, name: str, images: int | None = None) -> Path:
    """The file of an average, as it is now or as it was at ``images``."""
    at = "" if images is None else f"-{images:08d}"
    return folder / FOLDER / f"{name}{at}.safetensors"


def found(folder: Path) -> list[tuple[Path, Header]]:
    """Every average of a run with its header, the run's own checkpoint first; BadFile when a header is damaged."""
    paths = [folder / CHECKPOINT, *sorted((folder / FOLDER).glob("*.safetensors"))]
    return [(path, read_header(path)) for path in paths]


def rewind(folder: Path, images: int) -> None:
    """Drop what was stored beyond ``images``, where the run goes on from, and what a killed writer left."""
    sweep(folder / FOLDER)
    for path in (folder / FOLDER).glob("power-*-*.safetensors"):
        at = re.search(r"-(\d{8,})$", path.stem)
        if at and int(at[1]) > images:
            path.unlink()
