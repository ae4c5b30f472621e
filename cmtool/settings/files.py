"""Options of fetch, convert and status."""

# ruff: noqa: RUF009  (option() makes a dataclass field)

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from cmtool.errors import UsageError
from cmtool.options.ema_spec import MAX_EMA_WIDTH
from cmtool.options.fields import Options, option
from cmtool.options.types import between
from cmtool.settings.shared import INPUT, OUTPUT, ForeignOptions, overwrite_option


@dataclass(frozen=True, kw_only=True)
class FetchOptions(Options):
    """Options of ``cmtool fetch``."""

    command: ClassVar[str] = "fetch"

    name: str | None = option(
        None,
        help="what to download, or all",
        positional=True,
        metavar="NAME",
        shown="list what can be downloaded, and what already is",
    )
    folder: Path | None = option(
        None,
        help="where to put it",
        flag="-o",
        metavar="FOLDER",
        section=OUTPUT,
        shown="$CMTOOL_ASSETS, else the cache of cmtool",
    )


EXAMPLE = "cmtool convert runs/mine half.safetensors --dtype fp16"


@dataclass(frozen=True, kw_only=True)
class ConvertOptions(ForeignOptions):
    """Options of ``cmtool convert``."""

    command: ClassVar[str] = "convert"

    source: Path = option(
        help="checkpoint, model of another program, or run directory for the checkpoint in it",
        positional=True,
        metavar="IN",
        required=("convert needs a checkpoint or a run directory", EXAMPLE),
    )
    target: Path | None = option(
        None, help="checkpoint to write, or folder for diffusers", positional=True, metavar="OUT", shown="-o"
    )
    output: Path | None = option(None, help="the same as OUT", flag="-o", section=OUTPUT)
    overwrite: bool = overwrite_option()
    to: str = option(
        "cmtool",
        help="whose format to write: cmtool, or diffusers for a consistency model or teacher with the network adm",
        metavar="FORMAT",
        section=OUTPUT,
    )
    ema_width: float | None = option(
        None,
        help="post-hoc EMA: reconstruct the power-function EMA of this relative width from those stored in the run",
        check=between(0.005, round(MAX_EMA_WIDTH - 5e-4, 3)),
        metavar="WIDTH",
        section=INPUT,
    )
    dtype: str = option(
        "fp32",
        help="precision of the weights in the file; who loads it computes in fp32 all the same",
        choices=("fp32", "fp16", "bf16"),
        section=OUTPUT,
    )

    def __post_init__(self) -> None:
        if self.target is None and self.output is None:
            raise UsageError("convert needs a file to write to", EXAMPLE)
        if self.target and self.output and self.target != self.output:
            raise UsageError(f"convert writes one file, and {self.target} and {self.output} were named", EXAMPLE)

    @property
    def place(self) -> Path:
        """Where to write."""
        place = self.target or self.output
        assert place
        return place


@dataclass(frozen=True, kw_only=True)
class StatusOptions(Options):
    """Options of ``cmtool status``."""

    command: ClassVar[str] = "status"

    run: Path = option(
        help="run directory",
        positional=True,
        metavar="RUN",
        required=("status needs a run directory", "cmtool status runs/train-ct/mine"),
    )
    state: bool = option(
        False, help="the state alone: running, finished, preempted, interrupted or failed", section=OUTPUT
    )
