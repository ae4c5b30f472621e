"""Options of fetch, convert and status."""

# ruff: noqa: RUF009  (option() makes a dataclass field)

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from cmtool.errors import UsageError
from cmtool.options.ema_spec import EMA_SPECS, MAX_EMA_WIDTH
from cmtool.options.fields import Options, long_flag, option
from cmtool.options.types import Check, Spec, at_least, between, matches
from cmtool.settings.shared import DATA, INPUT, MACHINE, OUTPUT, ForeignOptions, overwrite_option


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
PACKED = (".zip", ".tar", ".npz", ".npy")
SPECS = ("format", "backbone", "data")
OF_CHECKPOINTS = {"to": "cmtool", "ema": None, "ema_width": None, "dtype": "fp32", "format": None, "backbone": None}
OF_IMAGES = {"size": None, "crop": "center", "channels": None, "labels": "auto", "data": None}


@dataclass(frozen=True, kw_only=True)
class ConvertOptions(ForeignOptions):
    """Options of ``cmtool convert``."""

    command: ClassVar[str] = "convert"

    source: str = option(
        help="checkpoint, model of another program, or run directory for the checkpoint in it; or images, as --data "
        "reads them: a folder, an archive, digits[0::2]",
        positional=True,
        metavar="IN",
        required=("convert needs a checkpoint, a run directory or images", EXAMPLE),
        path=True,
    )
    target: Path | None = option(
        None,
        help="checkpoint to write, or folder for diffusers; for images a .zip as EDM packs them, a .tar (WebDataset), "
        "or an .npz or .npy",
        positional=True,
        metavar="OUT",
        shown="-o",
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
    ema: str | None = option(
        None,
        help="of a training state in shards (RUN/states/...): which EMA to merge, as training names it",
        check=EMA_SPECS,
        metavar="TRACK",
        section=INPUT,
        shown="the first",
    )
    dtype: str = option(
        "fp32",
        help="precision of the weights in the file; who loads it computes in fp32 all the same",
        choices=("fp32", "fp16", "bf16"),
        section=OUTPUT,
    )
    size: str | None = option(
        None,
        help="side in pixels of the images, or height x width such as 48x64",
        check=matches(r"[1-9]\d{0,4}(x[1-9]\d{0,4})?", "a side, such as 64, or height x width, such as 48x64"),
        metavar="SIZE",
        section=DATA,
        shown="their own, where they agree on the short side",
    )
    crop: str = option(
        "center",
        help="how images get this size: cut at the centre, squeezed, or none where all have it",
        choices=("center", "squeeze", "none"),
        section=DATA,
    )
    channels: int | None = option(
        None,
        help="1 for grey images, 3 for coloured ones",
        check=Check(lambda channels: channels in (1, 3), "1 or 3"),
        section=DATA,
        shown="1 where all are grey, otherwise 3",
    )
    labels: str = option(
        "auto",
        help="where classes come from; auto takes those of the data, and else the folders",
        choices=("auto", "filename-prefix", "folder", "none"),
        section=DATA,
    )
    data: Spec | None = option(None, help="further options of the data set, such as data.split", yaml_only=True)
    threads: int | None = option(
        None,
        help="threads that decode and encode images",
        check=at_least(1, 4096),
        section=MACHINE,
        shown="every core, 8 at most",
    )

    @property
    def packs_images(self) -> bool:
        """Whether it is images that are asked for, which the suffix of what is written tells."""
        return self.place.suffix.lower() in PACKED

    def __post_init__(self) -> None:
        if self.target is None and self.output is None:
            raise UsageError("convert needs a file to write to", EXAMPLE)
        if self.target and self.output and self.target != self.output:
            raise UsageError(f"convert writes one file, and {self.target} and {self.output} were named", EXAMPLE)
        given = OF_CHECKPOINTS if self.packs_images else OF_IMAGES
        for name, default in given.items():
            if getattr(self, name) != default:
                what = "checkpoints" if self.packs_images else f"images, which go to {', '.join(PACKED)}"
                flag = f"--set {name}.OPTION" if name in SPECS else long_flag(name)
                raise UsageError(f"{flag} is for {what}, and {self.place} is to be written", "leave it out")

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
