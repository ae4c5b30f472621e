"""Options of train-score, distill and train-ct."""
# ruff: noqa: RUF009  (option() makes a dataclass field)

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from cmtool.errors import UsageError
from cmtool.options.data_spec import data_spec
from cmtool.options.ema_spec import EMA_SPECS
from cmtool.options.fields import option
from cmtool.options.lr_schedule import LR_SCHEDULES
from cmtool.options.save_interval import SAVE_INTERVALS
from cmtool.options.types import Check, Spec, at_least, between, positive
from cmtool.settings.evaluation import EvaluationOptions
from cmtool.settings.shared import DATA, INPUT, MACHINE, NETWORK, RUN, SEED, TRAINING, GuidanceOptions

# For runs of minutes: it reaches the highest noise levels soon, and low ones stay plain denoising to the end.
FAR = {"P_mean": -0.4, "P_std": 1.6, "k": 40.0, "stages": 4, "weight": "output"}

# What may be typed differently when a run goes on, if the user says so.
ALLOWED = ("micro-batch", "parallel", "precision")
CHANGES = Check(
    lambda names: {name.strip().replace("_", "-") for name in names} <= set(ALLOWED), f"of {', '.join(ALLOWED)}"
)


@dataclass(frozen=True, kw_only=True)
class TrainOptions(EvaluationOptions):
    """What train-score, distill and train-ct share."""

    data: Spec = option(
        Spec(name="shapes"),
        help="data set: NAME, NAME:SOURCE, or a folder or archive of images; digits[0::2] takes a part",
        flag="-d",
        group="datasets",
        parse=data_spec,
        metavar="DATA",
        section=DATA,
    )
    conditional: bool = option(True, help="learn the labels, where the data has them", section=DATA)
    label_dropout: float = option(
        0.0,
        help="probability that an image comes without its label; classifier-free guidance needs some, 0.1 is usual",
        check=between(0, 1),
        section=DATA,
    )
    flip: bool = option(False, help="flip half of the images horizontally", section=DATA)
    augment: float = option(
        0.0,
        help="probability of each augmentation, whose labels condition the network; 0.12 suits small sets",
        check=between(0, 1),
        section=DATA,
    )
    sigma_min: float = option(0.002, help="lowest noise level", check=positive(), section=NETWORK)
    sigma_max: float = option(80.0, help="highest noise level", check=positive(), section=NETWORK)
    images: int = option(36_000, help="length of training, in images", flag="-n", check=at_least(1), section=TRAINING)
    batch: int = option(16, help="batch size, in images", flag="-b", check=at_least(1, 10**6), section=TRAINING)
    optimizer: Spec = option(
        Spec(name="adam", betas=[0.9, 0.99]), help="optimizer, such as radam", group="optimizers", section=TRAINING
    )
    lr: float = option(2e-3, help="learning rate", check=positive(), section=TRAINING)
    warmup: int = option(
        2_000, help="images over which the learning rate grows from 0", check=at_least(0), section=TRAINING
    )
    lr_schedule: str = option(
        "cosine",
        help="learning-rate decay after the warmup",
        choices=tuple(LR_SCHEDULES),
        section=TRAINING,
    )
    hold: int | None = option(
        None,
        help="images before the schedule sqrt sets in",
        yaml_only=True,
        check=at_least(1),
        section=TRAINING,
        shown="warmup",
    )
    ema: int | str = option(
        1_500,
        help="EMA half-life, in images; below 1, such as 0.9999, the EMA decay of each step; 0: no EMA. "
        "Several, such as 1500,power:0.05,power:0.1: the first is the model, the others are kept beside it",
        check=EMA_SPECS,
        metavar="TRACKS",
        section=TRAINING,
    )
    grad_clip: float = option(
        10.0, help="largest norm of the gradient; 0: no clipping", check=at_least(0), section=TRAINING
    )
    seed: int = option(0, help="seed of all random numbers of the run", check=SEED, section=TRAINING)
    run_dir: Path | None = option(
        None,
        help="run directory; a run that is there goes on where it was saved, with more --images also beyond its end",
        metavar="FOLDER",
        section=RUN,
        shown="runs/COMMAND/DATE-DATA-HEX",
    )
    resume: Path | None = option(
        None, help="the same as --run-dir, for a run that must be there", metavar="FOLDER", section=RUN
    )
    save_every: str = option(
        "10min",
        help="time or images between saves of the training state, such as 10min, 1h, 5000img or 10min,50kimg",
        check=SAVE_INTERVALS,
        metavar="INTERVAL",
        section=RUN,
    )
    keep: int = option(2, help="training states to keep, the newest ones", check=at_least(1, 1000), section=RUN)
    allow_change: tuple[str, ...] | None = option(
        None,
        help="options that may differ from those a run began with, of micro-batch, parallel and precision: "
        "then the last bits of the weights differ",
        check=CHANGES,
        metavar="OPTIONS",
        section=RUN,
    )
    reproduce: Path | None = option(
        None,
        help="compute the step again at which a run diverged, from the capsule in its folder, and say where it breaks",
        metavar="CAPSULE",
        section=RUN,
    )
    snapshots: int = option(8, help="sample grids drawn during training", check=at_least(0, 10**5), section=RUN)
    ema_snapshots: int = option(
        16,
        help="times each power-function EMA is stored during training, for convert --ema-width",
        check=at_least(0, 10**5),
        section=RUN,
    )
    ema_dtype: str = option("fp32", help="precision of these stored EMAs", choices=("fp32", "fp16"), section=RUN)
    dry_run: bool = option(False, help="say what would be done and how large it is, write nothing", section=RUN)
    micro_batch: int | None = option(
        None,
        help="images of a micro-batch, to save memory",
        check=at_least(1, 10**6),
        section=MACHINE,
        shown="what suits",
    )
    parallel: str = option(
        "auto",
        help="how ranks share a batch: exact, with the bits of one process whatever their number, or ddp, by "
        "DistributedDataParallel, or fsdp, by FSDP2, with a part of the weights on each; auto: ddp on CUDA",
        choices=("auto", "exact", "ddp", "fsdp"),
        yaml_only=True,
        section=MACHINE,
    )
    precision: str = option(
        "auto", help="precision of the network; bf16: autocast", choices=("auto", "fp32", "bf16"), section=MACHINE
    )
    cache: int | None = option(
        None,
        help="memory for decoded images, in MB, on the device if that is a GPU; data that need more are streamed",
        yaml_only=True,
        check=at_least(0, 10**8),
        section=MACHINE,
        shown="a quarter of what is free",
    )

    def __post_init__(self) -> None:
        if self.sigma_min >= self.sigma_max:
            raise UsageError(f"sigma_min ({self.sigma_min:g}) must be below sigma_max ({self.sigma_max:g})")

    def due(self, images: int, times: int) -> bool:
        """Whether the step that ended at ``images`` crossed one of ``times`` equal parts of the run."""
        part = self.images / max(times, 1)
        return times > 0 and (images // part > (images - self.batch) // part or images >= self.images)


@dataclass(frozen=True, kw_only=True)
class NetworkOptions(TrainOptions):
    """For training that chooses its network; distillation takes that of its teacher."""

    backbone: Spec = option(
        Spec(name="unet", model_channels=32), help="network architecture", group="backbones", section=NETWORK
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


@dataclass(frozen=True, kw_only=True)
class DistillOptions(TrainOptions, GuidanceOptions):
    """Options of ``cmtool distill``."""

    command: ClassVar[str] = "distill"
    refused: ClassVar = {
        key: (f"distill takes the {what} of its teacher", "train a teacher that has it: cmtool train-score")
        for key, what in (("backbone", "network"), ("sigma_data", "sigma_data"))
    }

    method: Spec = option(Spec(name="ecd", **FAR), help="distillation method", group="distill", section=TRAINING)
    teacher: Path | None = option(
        None, help="score model to distil", flag="-t", section=INPUT, shown="for shapes, the bundled one"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.teacher is None and self.data.name != "shapes":
            raise UsageError("distill needs --teacher FILE, a score model", "train one first: cmtool train-score")


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

    method: Spec = option(
        Spec(name="stable", **FAR), help="consistency-training method", group="train_ct", section=TRAINING
    )
    init: Path | None = option(None, help="start from the weights of this model", section=INPUT)
