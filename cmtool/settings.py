"""Every option of every command: its default, type, check and help, once."""
# ruff: noqa: RUF009  (option() makes a dataclass field)

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from cmtool.dataspec import data_spec
from cmtool.declarations import Options, option
from cmtool.errors import UsageError
from cmtool.values import LARGEST_SEED, Seeds, Spec, at_least, between, falling, matching, positive

__all__ = [
    "DistillOptions",
    "EditOptions",
    "FidOptions",
    "InfoOptions",
    "InterpOptions",
    "SampleOptions",
    "TrainCtOptions",
    "TrainOptions",
    "TrainScoreOptions",
]

DATA, NETWORK, TRAINING, RUN, MACHINE = "Data", "Network", "Training", "Run", "Machine"
INPUT, SAMPLING, OUTPUT = "Input", "Sampling", "Output"
SEED = between(0, LARGEST_SEED)


# ECT for runs of minutes: it reaches the highest levels soon, and at low ones it stays plain denoising to the end.
SHORT_ECT = Spec(name="ect", mean=-0.4, std=1.6, k=40.0, stages=4, weight="output")


@dataclass(frozen=True, kw_only=True)
class MachineOptions(Options):
    """Where the work is done."""

    device: str = option(
        "auto",
        help="auto, cpu, cuda, cuda:N or mps",
        metavar="DEVICE",
        check=matching(r"auto|cpu|mps|cuda(:\d+)?", "auto, cpu, cuda, cuda:N or mps"),
        section=MACHINE,
    )
    threads: int | None = option(None, help="processor threads", check=at_least(1), section=MACHINE, shown="every core")


@dataclass(frozen=True, kw_only=True)
class TrainOptions(MachineOptions):
    """What train-score, distill and train-ct share."""

    data: Spec = option(
        Spec(name="shapes"),
        help="data set: NAME, NAME:SOURCE or a folder of images; digits[0::2] takes a part",
        flag="-d",
        group="datasets",
        parse=data_spec,
        metavar="DATA",
        section=DATA,
    )
    conditional: bool = option(True, help="learn the labels, where the data has them", section=DATA)
    flip: bool = option(False, help="mirror half of the images", section=DATA)
    sigma_min: float = option(0.002, help="lowest noise level", check=positive(), section=NETWORK)
    sigma_max: float = option(80.0, help="highest noise level", check=positive(), section=NETWORK)
    images: int = option(36_000, help="length, in images", flag="-n", check=at_least(1), section=TRAINING)
    batch: int = option(16, help="images in a step", flag="-b", check=at_least(1), section=TRAINING)
    optimizer: Spec = option(
        Spec(name="adam", betas=[0.9, 0.99]), help="optimizer and its options", yaml_only=True, section=TRAINING
    )
    lr: float = option(2e-3, help="learning rate", check=positive(), section=TRAINING)
    warmup: int = option(2_000, help="images over which the rate grows from 0", check=at_least(0), section=TRAINING)
    decay: str = option(
        "cosine",
        help="how the rate falls afterwards",
        choices=("constant", "cosine", "linear", "sqrt"),
        section=TRAINING,
    )
    ema: int = option(
        1_500, help="half-life of the averaged weights, in images; 0: none", check=at_least(0), section=TRAINING
    )
    clip: float = option(10.0, help="largest norm of a gradient; 0 clips none", check=at_least(0), section=TRAINING)
    seed: int = option(0, help="seed of every draw of the run", check=SEED, section=TRAINING)
    run: Path | None = option(
        None, help="run directory", metavar="FOLDER", section=RUN, shown="runs/COMMAND/DATE-DATA-HEX"
    )
    resume: Path | None = option(None, help="go on with this run", metavar="FOLDER", section=RUN)
    snapshots: int = option(8, help="sample grids drawn on the way", check=at_least(0), section=RUN)
    dry_run: bool = option(False, help="say what would be done and how large it is, write nothing", section=RUN)
    micro_batch: int | None = option(
        None, help="images at a time, to save memory", check=at_least(1), section=MACHINE, shown="what suits"
    )
    precision: str = option("auto", help="arithmetic", choices=("auto", "fp32", "bf16"), section=MACHINE)

    def __post_init__(self) -> None:
        if self.sigma_min >= self.sigma_max:
            raise UsageError(f"sigma_min ({self.sigma_min:g}) must be below sigma_max ({self.sigma_max:g})")


@dataclass(frozen=True, kw_only=True)
class NetworkOptions(TrainOptions):
    """For training that chooses its network; distillation takes that of its teacher."""

    backbone: Spec = option(
        Spec(name="unet", width=32), help="network architecture", group="backbones", section=NETWORK
    )
    sigma_data: float = option(0.5, help="standard deviation of the data in [-1, 1]", check=positive(), section=NETWORK)


@dataclass(frozen=True, kw_only=True)
class TrainScoreOptions(NetworkOptions):
    """Options of ``cmtool train-score``."""

    command: ClassVar[str] = "train-score"
    refused: ClassVar = {
        "teacher": ("train-score learns from data alone and takes no teacher", "cmtool distill --teacher FILE uses one")
    }

    method: Spec = option(Spec(name="edm"), help="objective", group="train_score", section=TRAINING)
    augment: float = option(
        0.0,
        help="probability of each change to an image, of which the network is told; 0.12 suits small sets",
        check=between(0, 1),
        section=DATA,
    )


@dataclass(frozen=True, kw_only=True)
class DistillOptions(TrainOptions):
    """Options of ``cmtool distill``."""

    command: ClassVar[str] = "distill"
    refused: ClassVar = {
        key: (f"distill takes the {what} of its teacher", "train a teacher that has it: cmtool train-score")
        for key, what in (("backbone", "network"), ("sigma_data", "sigma_data"))
    }

    method: Spec = option(Spec(name="cd"), help="distillation method", group="distill", section=TRAINING)
    teacher: Path = option(
        help="score model to distil",
        flag="-t",
        section=INPUT,
        required=("distill needs --teacher FILE, a score model", "train one first: cmtool train-score"),
    )


@dataclass(frozen=True, kw_only=True)
class TrainCtOptions(NetworkOptions):
    """Options of ``cmtool train-ct``."""

    command: ClassVar[str] = "train-ct"
    refused: ClassVar = {
        "teacher": (
            "train-ct learns from data alone and takes no teacher",
            "cmtool distill --teacher FILE learns from a score model, train-ct --init FILE starts from its weights",
        )
    }

    method: Spec = option(SHORT_ECT, help="consistency-training method", group="train_ct", section=TRAINING)
    init: Path | None = option(None, help="start from the weights of this model", section=INPUT)


@dataclass(frozen=True, kw_only=True)
class SamplingOptions(MachineOptions):
    """How a model draws images, for every command that lets one."""

    steps: int | None = option(
        None,
        help="network evaluations of a consistency model, solver steps of a score model",
        flag="-k",
        check=at_least(1),
        section=SAMPLING,
        shown="1 or 18",
    )
    levels: tuple[float, ...] | None = option(
        None,
        help="noise levels to visit, falling, such as 80,0.8",
        check=falling(),
        metavar="X,X",
        section=SAMPLING,
        shown="chosen for --steps",
    )
    klass: int | str | None = option(
        None, key="class", help="class, by number or name", metavar="CLASS", section=SAMPLING, shown="they take turns"
    )
    batch: int = option(
        64, help="images at a time; does not change them", flag="-b", check=at_least(1), section=MACHINE
    )


def _model() -> Any:
    newest = "$CMTOOL_MODEL, else the newest run"
    return option(None, help="checkpoint or run directory", flag="-m", section=INPUT, shown=newest)


def _seed() -> Any:
    return option(0, help="seed of the first image; each image depends on its own alone", check=SEED, section=SAMPLING)


@dataclass(frozen=True, kw_only=True)
class SampleOptions(SamplingOptions):
    """Options of ``cmtool sample``."""

    command: ClassVar[str] = "sample"

    model: Path | None = _model()
    n: int = option(64, help="number of images", check=at_least(1), section=SAMPLING)
    seed: int = _seed()
    seeds: Seeds | None = option(
        None, help="seeds such as 0-63 or 1,2,5-10", metavar="SEEDS", section=SAMPLING, shown="n from --seed on"
    )
    solver: Spec | None = option(None, help="solver of a score model", group="solvers", section=SAMPLING, shown="heun")
    output: str = option(
        "samples",
        help="FOLDER, FILE.npz, FILE.tar, or - for a tar of PNG on standard output",
        flag="-o",
        metavar="OUT",
        section=OUTPUT,
    )
    grid: Path | None = option(
        None, help="write the first 100 images side by side, too", metavar="FILE.png", section=OUTPUT
    )


@dataclass(frozen=True, kw_only=True)
class EditOptions(SamplingOptions):
    """Options of ``cmtool edit``."""

    command: ClassVar[str] = "edit"

    operator: Spec = option(
        help="inpaint, colorize, superres, denoise or stroke",
        group="operators",
        positional=True,
        metavar="TASK",
        required=("edit needs a task", "inpaint, colorize, superres, denoise or stroke"),
    )
    input: str = option(
        help="image, or - for standard input",
        positional=True,
        metavar="IN",
        required=("edit needs an image", "cmtool edit inpaint photo.png --mask mask.png -o out.png"),
    )
    model: Path | None = _model()
    mask: Path | None = option(None, help="white where inpaint may paint", metavar="FILE", section=INPUT)
    factor: int | None = option(
        None, help="how many times larger superres makes it", check=at_least(2), section=INPUT, shown="the task's"
    )
    level: float | None = option(
        None,
        help="noise level at which denoise and stroke start; higher is freer",
        check=positive(),
        section=SAMPLING,
        shown="the task's",
    )
    seed: int = _seed()
    output: str = option(
        "edited.png", help="image file, or - for standard output", flag="-o", metavar="OUT", section=OUTPUT
    )


@dataclass(frozen=True, kw_only=True)
class InterpOptions(SamplingOptions):
    """Options of ``cmtool interp``."""

    command: ClassVar[str] = "interp"
    refused: ClassVar = {"seed": ("interp takes its two seeds as arguments", "cmtool interp 3 7")}

    a: int = option(0, help="seed of the first image", positional=True, check=SEED, metavar="FROM")
    b: int = option(1, help="seed of the last image", positional=True, check=SEED, metavar="TO")
    model: Path | None = _model()
    frames: int = option(8, help="images, both ends counted", flag="-n", check=at_least(2), section=OUTPUT)
    output: str = option(
        "interp.png", help="a strip FILE.png, FOLDER, FILE.npz, FILE.tar or -", flag="-o", metavar="OUT", section=OUTPUT
    )


@dataclass(frozen=True, kw_only=True)
class FidOptions(SamplingOptions):
    """Options of ``cmtool fid``."""

    command: ClassVar[str] = "fid"

    source: str = option(
        help="images to judge: FOLDER, FILE.npz, FILE.tar, - (a tar on standard input), checkpoint or data set",
        positional=True,
        metavar="SOURCE",
        required=("fid needs images to judge", "cmtool fid samples --ref digits --features small"),
    )
    ref: str = option(
        help="images to compare with: any of these, or statistics .npz",
        flag="-r",
        metavar="REF",
        required=("fid needs --ref, the images to compare with", "cmtool fid samples --ref digits --features small"),
        section=INPUT,
    )
    features: Spec = option(
        Spec(name="inception"),
        help="inception gives FID; small needs no download and gives FD-small, which is no FID",
        group="features",
        section=INPUT,
    )
    n: int | None = option(None, help="images at most", check=at_least(2), section=INPUT, shown="all; 10000 of a model")
    seed: int = _seed()
    batch: int = option(256, help="images at a time", flag="-b", check=at_least(1), section=MACHINE)


@dataclass(frozen=True, kw_only=True)
class InfoOptions(Options):
    """Options of ``cmtool info``."""

    command: ClassVar[str] = "info"

    what: str = option("plugins", help="plugins, presets or a checkpoint", positional=True, metavar="WHAT")
