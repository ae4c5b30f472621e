"""The sections of the help pages, and where the work is done."""

from dataclasses import dataclass
from typing import Any

from cmtool.declarations import Options, option
from cmtool.values import LARGEST_SEED, at_least, between, matching

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
        check=matching(r"auto|cpu|mps|cuda(:\d{1,3})?", "auto, cpu, cuda, cuda:N or mps"),
        section=MACHINE,
    )
    threads: int | None = option(
        None, help="processor threads", check=at_least(1, 4096), section=MACHINE, shown="every core"
    )


def overwrite_option() -> Any:
    return option(False, help="write over files that this command did not make, and over what it reads", section=OUTPUT)
