"""Options that several commands share: device and threads, files of other programs, guidance; sections of the help."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cmtool.options.fields import Options, option

# ruff: noqa: RUF009  (option() makes a dataclass field)
from cmtool.options.types import LARGEST_SEED, Spec, at_least, between, matches, span

DATA, NETWORK, TRAINING, RUN, MACHINE = "Data", "Network", "Training", "Run", "Machine"
INPUT, TASK, SAMPLING, GUIDANCE, SEARCH, OUTPUT = "Input", "Task", "Sampling", "Guidance", "Search", "Output"
SEED = between(0, LARGEST_SEED)


@dataclass(frozen=True, kw_only=True)
class MachineOptions(Options):
    """Where the work is done."""

    device: str = option(
        "auto",
        help="auto, cpu, cuda, cuda:N or mps",
        metavar="DEVICE",
        check=matches(r"auto|cpu|mps|cuda(:\d{1,3})?", "auto, cpu, cuda, cuda:N or mps"),
        section=MACHINE,
    )
    threads: int | None = option(
        None, help="processor threads", check=at_least(1, 4096), section=MACHINE, shown="every core"
    )


def overwrite_option() -> Any:
    return option(False, help="write over files that this command did not make, and over what it reads", section=OUTPUT)


@dataclass(frozen=True, kw_only=True)
class ForeignOptions(Options):
    """What the file of another program leaves open; ours say all themselves."""

    format: Spec | None = option(
        None, help="of a model of another program, what its file leaves open", yaml_only=True, section=INPUT
    )
    backbone: Spec | None = option(
        None, help="of its network, what its file leaves open", yaml_only=True, section=INPUT
    )


@dataclass(frozen=True, kw_only=True)
class GuidanceOptions(MachineOptions):
    """How a score model is pushed away from a weaker one."""

    guidance: float = option(
        1.0,
        help="weight of a score model against itself without the class, or against --guidance-model; 1: none",
        check=at_least(0),
        section=GUIDANCE,
    )
    guidance_interval: tuple[float, ...] | None = option(
        None,
        help="noise levels between which it acts, such as 0.2,5",
        check=span(),
        metavar="LO,HI",
        section=GUIDANCE,
        shown="all of them",
    )
    guidance_model: Path | None = option(
        None, help="a smaller or less trained score model to be pushed away from (autoguidance)", section=GUIDANCE
    )
