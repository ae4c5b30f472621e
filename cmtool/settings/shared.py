"""Options that several commands share: device and threads, files of other programs, guidance; sections of the help."""
# ruff: noqa: RUF009  (option() makes a dataclass field)

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cmtool.options.fields import Options, option
from cmtool.options.types import LARGEST_SEED, Spec, at_least, between, matches, span

DATA, NETWORK, TRAINING, RUN, MACHINE = "Data", "Network", "Training", "Run", "Machine"
EVALUATION = "Evaluation"
INPUT, TASK, SAMPLING, GUIDANCE, SEARCH, OUTPUT = "Input", "Task", "Sampling", "Guidance", "Search", "Output"
SEED = between(0, LARGEST_SEED)


@dataclass(frozen=True, kw_only=True)
class MachineOptions(Options):
    """The device and the threads that compute."""

    device: str = option(
        "auto",
        help="device to compute on: auto, cpu, cuda, cuda:N or mps",
        metavar="DEVICE",
        check=matches(r"auto|cpu|mps|cuda(:\d{1,3})?", "auto, cpu, cuda, cuda:N or mps"),
        section=MACHINE,
    )
    threads: int | None = option(
        None, help="threads of the processor", check=at_least(1, 4096), section=MACHINE, shown="every core"
    )


def overwrite_option() -> Any:
    """``--overwrite`` of commands that write one result."""
    return option(False, help="overwrite files that this command did not make, and those that it reads", section=OUTPUT)


@dataclass(frozen=True, kw_only=True)
class ForeignOptions(Options):
    """What the checkpoint of another program does not say; a checkpoint of cmtool says everything itself."""

    format: Spec | None = option(
        None, help="options of the format of another program's checkpoint, such as format.kind", yaml_only=True
    )
    backbone: Spec | None = option(None, help="options of its network that the checkpoint does not say", yaml_only=True)


@dataclass(frozen=True, kw_only=True)
class GuidanceOptions(MachineOptions):
    """Guidance of a score model, by itself without the class (classifier-free) or by a weaker model (autoguidance)."""

    guidance: float = option(
        1.0,
        help="guidance scale of a score model, against itself without the class or against --guidance-model; 1: none",
        check=at_least(0),
        section=GUIDANCE,
    )
    guidance_interval: tuple[float, ...] | None = option(
        None,
        help="noise levels (sigma) between which guidance is on, such as 0.2,5",
        check=span(),
        metavar="LO,HI",
        section=GUIDANCE,
        shown="all of them",
    )
    guidance_model: Path | None = option(
        None, help="smaller or less trained score model to guide away from (autoguidance)", section=GUIDANCE
    )
