"""Options of the commands that look at images and files: fid, search-sigmas, likelihood and info."""
# ruff: noqa: RUF009  (option() makes a dataclass field)

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from cmtool.options.data_spec import data_spec
from cmtool.options.fields import option
from cmtool.options.types import Spec, at_least, positive
from cmtool.settings.sampling import GenerationOptions, model_option, seed_option
from cmtool.settings.shared import (
    DATA,
    INPUT,
    MACHINE,
    OUTPUT,
    SAMPLING,
    SEARCH,
    SEED,
    ForeignOptions,
    MachineOptions,
    overwrite_option,
)


def reference_option(command: str, what: str) -> Any:
    example = f"cmtool {command} --ref digits --features small"
    return option(
        help=f"images to compare with: {what}",
        flag="-r",
        metavar="REF",
        required=(f"{command.split()[0]} needs --ref, the images to compare with", example),
        path=True,
        section=INPUT,
    )


def features_option() -> Any:
    return option(
        Spec(name="inception"),
        help="inception gives FID; small needs no download and gives FD-small, which is no FID",
        group="features",
        section=INPUT,
    )


def batch_option() -> Any:
    return option(256, help="images at a time", flag="-b", check=at_least(1, 10**6), section=MACHINE)


@dataclass(frozen=True)
class Protocol:
    """What a tool of published numbers does: the ``network`` and the resizing ``mode`` of the features ``inception``.

    ``truncate`` says that it cuts off the fraction of a model's pixels, and does not round them.
    """

    network: str
    mode: str
    truncate: bool = False


PROTOCOLS = {
    "edm": Protocol("torchscript", "legacy_tensorflow"),
    "adm": Protocol("pth", "legacy_tensorflow", truncate=True),  # the network that shows the features of sFID
    "clean": Protocol("torchscript", "clean"),
    "pytorch-fid": Protocol("pth", "legacy_pytorch"),
}


@dataclass(frozen=True, kw_only=True)
class FidOptions(GenerationOptions):
    """Options of ``cmtool fid``."""

    command: ClassVar[str] = "fid"

    source: str | None = option(
        None,
        help="images to score: FOLDER, FILE.npz, .npy, .zip, .tar, - (a pipe), checkpoint, run, data set or statistics",
        positional=True,
        metavar="SOURCE",
        shown="the newest run, else the bundled model",
        path=True,
    )
    ref: str | None = option(
        None,
        help="images to compare with: any of these, or statistics of other tools (.npz, .pkl, .pt)",
        flag="-r",
        metavar="REF",
        section=INPUT,
        shown="the training data of the model",
        path=True,
    )
    features: Spec = features_option()
    protocol: str | None = option(
        None,
        help="network, resizing and rounding of a tool whose published numbers are to be compared with",
        choices=tuple(PROTOCOLS),
        section=INPUT,
    )
    metrics: tuple[Spec, ...] = option(
        (Spec(name="fid"),),
        help="what to measure, with commas between",
        group="metrics",
        listed=True,
        metavar="NAME,NAME",
        section=INPUT,
        shown="fid",
    )
    n: int | None = option(
        None, help="images of SOURCE at most", check=at_least(2), section=INPUT, shown="all; 10000 of a model"
    )
    make_ref: bool = option(
        False, help="write the statistics of SOURCE to --output, for others to be compared with", section=OUTPUT
    )
    output: Path = option(
        Path("ref.npz"),
        help="where --make-ref writes; EDM's, clean-fid's and pytorch-fid's tools read it",
        flag="-o",
        metavar="FILE.npz",
        section=OUTPUT,
    )
    every: int = option(
        1,
        help="of a run that kept several checkpoints and averages, score every N-th along training; 0: the model alone",
        check=at_least(0, 10**5),
        section=INPUT,
    )
    chart: Path | None = option(
        None,
        help="where the curve of a run's checkpoints is drawn",
        metavar="FILE.png",
        section=OUTPUT,
        shown="fid.png in the run",
    )
    sheet: Path | None = option(
        None,
        help="draw the images that lie closest to training images above those, for the metric memorization",
        metavar="FILE.png",
        section=OUTPUT,
    )
    overwrite: bool = overwrite_option()
    seed: int = seed_option()
    batch: int = batch_option()


@dataclass(frozen=True, kw_only=True)
class SearchSigmasOptions(MachineOptions):
    """Options of ``cmtool search-sigmas``."""

    command: ClassVar[str] = "search-sigmas"

    model: Path = option(
        help="consistency model: checkpoint or run directory",
        positional=True,
        metavar="MODEL",
        required=(
            "search-sigmas needs a model",
            "cmtool search-sigmas model.safetensors --ref digits --features small",
        ),
    )
    ref: str = reference_option(
        "search-sigmas model.safetensors",
        "FOLDER, FILE.npz, FILE.tar, - (a tar on standard input), data set or statistics .npz",
    )
    features: Spec = features_option()
    steps: int = option(
        2,
        help="NFE of each image; every noise level (sigma) but the highest is searched for",
        flag="-k",
        check=at_least(2, 10**5),
        section=SAMPLING,
    )
    n: int = option(
        10_000, help="images of each measurement, the same noise every time", check=at_least(2), section=SAMPLING
    )
    seed: int = seed_option()
    within: float = option(
        0.1,
        help="a sigma is found when ln sigma is known within this",
        check=positive(),
        section=SEARCH,
    )
    tolerance: float = option(
        0.01,
        help="the search ends when no sigma lowers the distance by more than this part of it",
        check=at_least(0),
        section=SEARCH,
    )
    budget: int | None = option(
        None,
        help="measurements at most",
        check=at_least(1, 10**5),
        section=SEARCH,
        shown="three rounds over the sigmas; one for a single sigma",
    )
    output: Path = option(
        Path("tuned.safetensors"),
        help="copy of the model that samples at the sigmas found; FILE.trace.jsonl holds every measurement",
        flag="-o",
        metavar="FILE",
        section=OUTPUT,
    )
    overwrite: bool = overwrite_option()
    batch: int = batch_option()


@dataclass(frozen=True, kw_only=True)
class LikelihoodOptions(MachineOptions, ForeignOptions):
    """Options of ``cmtool likelihood``."""

    command: ClassVar[str] = "likelihood"

    data: Spec | None = option(
        None,
        help="images whose density is asked for: data set or folder; digits[0::2] takes a part",
        flag="-d",
        group="datasets",
        parse=data_spec,
        metavar="DATA",
        section=INPUT,
        shown="the training data of the model",
    )
    model: Path | None = model_option()
    n: int = option(100, help="images at most", check=at_least(1), section=INPUT)
    steps: int = option(
        64,
        help="steps of the classical Runge-Kutta method, 4 NFE each",
        flag="-k",
        check=at_least(1, 10**5),
        section=SAMPLING,
    )
    hutchinson_probes: int = option(
        1,
        help="probe vectors of Hutchinson's estimate of the divergence; 0: the exact divergence",
        check=at_least(0, 10**5),
        section=SAMPLING,
    )
    probe: str = option(
        "rademacher", help="distribution of the probe vectors", choices=("rademacher", "gaussian"), section=SAMPLING
    )
    seed: int = option(0, help="seed of dequantisation and probe vectors", check=SEED, section=SAMPLING)


@dataclass(frozen=True, kw_only=True)
class InfoOptions(ForeignOptions):
    """Options of ``cmtool info``."""

    command: ClassVar[str] = "info"

    what: str = option(
        "plugins",
        help="plugins, a group such as methods, a name such as ect, presets, a checkpoint, a run, or images as --data "
        "reads them: a folder, an archive, digits[:]",
        positional=True,
        metavar="WHAT",
        path=True,
    )
    quick: bool = option(False, help="of images, read only what files say of themselves, and decode none", section=DATA)
    threads: int | None = option(
        None, help="threads that decode images", check=at_least(1, 4096), section=MACHINE, shown="every core, 8 at most"
    )
    data: Spec | None = option(
        None, help="options of the data set, such as data.labels, which says where classes come from", yaml_only=True
    )
