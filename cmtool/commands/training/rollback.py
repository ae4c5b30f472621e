"""What is done about gradients that are not finite, several in a row: once a rollback, then the end with a capsule.

One such gradient is left out by the loop, and changes nothing. Several in a row come from weights that have gone
astray, or from draws that break good ones: going back helps against the former, other draws against the latter. Where
neither helps it is the images or the options.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from shlex import quote
from typing import Any

from torch import Tensor

from cmtool.commands.training.capsule import CAPSULE, write_capsule
from cmtool.commands.training.resume import agree_on_state, restore
from cmtool.commands.training.saving import Saver
from cmtool.errors import Diverged
from cmtool.pipelines.distributed import find_world, local_device
from cmtool.pipelines.training_job import TrainingJob, build_training
from cmtool.settings import TrainOptions
from cmtool.training.devices import choose_device
from cmtool.training.state import pack, unpack

__all__ = ["PATIENCE", "divergence", "keep_divergence", "roll_back"]

PATIENCE = 5  # steps in a row without a finite gradient


def roll_back(options: TrainOptions, job: TrainingJob, folder: Path, warn: Callable[[str], None]) -> Mapping[str, Any]:
    """Put the job where it was last saved after a good step, or at its beginning, with other random draws.

    The scalars of that state; none at the beginning. The images come in the same order; their noise, noise levels,
    augmentation and dropout are others.
    """
    draws = job.state.draws + 1
    found = agree_on_state(find_world(), folder, warn, good=lambda state: not state.scalars.get("streak", 0))
    if found:
        restore(job, found)
    else:
        unpack(
            job.state, *pack(build_training(options, choose_device(local_device(options.device)), job.dataset).state)
        )
    job.state.draws = job.batches.draws = draws
    return found.scalars if found else {}


def keep_divergence(saver: Saver, tensors: Mapping[str, Tensor]) -> None:
    """Put the last step into a capsule, of the ``tensors`` of the state, and the weights before it into checkpoints."""
    saver.save_models()
    capsule = write_capsule(saver.options, saver.job, tensors, saver.folder)
    saver.status("failed", exit_code=Diverged.code, capsule=str(capsule.relative_to(saver.folder)))


def divergence(options: TrainOptions, folder: Path) -> Diverged:
    """The message about a run that ends, when all is kept."""
    again = f"cmtool {options.command} --reproduce {quote(str(folder / CAPSULE))}"
    lr = f"{options.lr / 3:.1g}"
    return Diverged(
        f"the last {PATIENCE} gradients were not finite, also after a rollback; the weights before them are in "
        f"{folder}",
        f"start again with a lower learning rate, --lr {lr}, or with --grad-clip 1; see where it breaks: {again}",
    )
