"""How much a run writes, and whether there is room for it, which is asked before time is spent."""

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from cmtool.errors import Hint, Setting, WriteFailed
from cmtool.files.atomic import FULL
from cmtool.options.ema_spec import parse_ema_specs
from cmtool.pipelines.training_job import TrainingJob
from cmtool.settings import TrainOptions
from cmtool.training.state import pack

__all__ = ["RunSize", "check_room", "is_full", "size_below", "size_of"]

SLACK = 1 << 20  # bytes: headers, lines, sample grids


@dataclass(frozen=True)
class RunSize:
    """Bytes: of one training ``state``, of the ``checkpoint`` of one average, and of all that a run may keep, at most.

    Before its first step an optimizer has no moments; it is taken to have two of each weight, as Adam has.
    """

    state: int
    checkpoint: int
    whole: int

    @classmethod
    def of(cls, options: TrainOptions, job: TrainingJob) -> "RunSize":
        state, tracks = job.state, parse_ema_specs(options.ema)
        tensors = pack(state)[0]
        trained = [p for group in state.optimizer.param_groups for p in group["params"]]
        moments = 0 if state.optimizer.state else 2 * size_of(trained)
        checkpoint = size_of(state.average.model.state_dict().values())
        stored = checkpoint // (1 if options.ema_dtype == "fp32" else 2) * options.ema_snapshots
        powers = sum(track.form == "power" for track in tracks)
        one = size_of(tensors.values()) + moments
        # a state more than are kept, and a checkpoint more than there are averages: a new one stands beside an old one
        kept = len(tracks) + 1 + (2 if options.eval_interval else 0)  # the best one, and one that was
        whole = one * (options.keep + 1) + checkpoint * kept + stored * powers
        return cls(one, checkpoint, whole)


def check_room(folder: Path, needed: int) -> None:
    """WriteFailed where the disk of ``folder``, which need not be there yet, has less than ``needed`` bytes left."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < needed + SLACK:
        raise WriteFailed(
            f"there is not enough room for {folder}: it needs {_megabytes(needed)}, and {_megabytes(free)} are free",
            Hint("free some space, give a smaller {}, or choose another {}", Setting("keep"), Setting("run_dir")),
        )


def is_full(error: WriteFailed) -> bool:
    """Whether it is for want of space that nothing was written."""
    return not isinstance(error.__cause__, OSError) or error.__cause__.errno in FULL


def size_below(folder: Path) -> int:
    """The bytes of the files in a folder and below it."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def size_of(tensors: Iterable[Tensor]) -> int:
    """The bytes of their values."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
