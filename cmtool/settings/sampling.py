"""Options of the commands that draw images: what they share, and those of sample."""
# ruff: noqa: RUF009  (option() makes a dataclass field)

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from cmtool.options.fields import option
from cmtool.options.types import Seeds, Spec, ascending_integers, at_least, at_least_or, between, descending, part_of
from cmtool.settings.shared import (
    INPUT,
    MACHINE,
    OUTPUT,
    SAMPLING,
    SEED,
    ForeignOptions,
    GuidanceOptions,
    MachineOptions,
)

SAMPLES = "samples"  # where images go when nothing is said


@dataclass(frozen=True, kw_only=True)
class SamplingOptions(MachineOptions, ForeignOptions):
    """How a model draws images, for every command that lets one."""

    steps: int | None = option(
        None,
        help="NFE of a consistency model, steps of a score model's solver",
        flag="-k",
        check=at_least(1, 10**5),
        section=SAMPLING,
        shown="1, or as many as it was tuned to; 18",
    )
    sigmas: tuple[float, ...] | None = option(
        None,
        help="noise levels (sigma) to sample at, descending, such as 80,0.8",
        check=descending(),
        metavar="X,X",
        section=SAMPLING,
        shown="chosen for --steps",
    )
    klass: str | None = option(
        None, key="class", help="class, by name or number", metavar="CLASS", section=SAMPLING, shown="they take turns"
    )
    batch: int = option(
        64, help="images at a time; does not change them", flag="-b", check=at_least(1, 10**6), section=MACHINE
    )


@dataclass(frozen=True, kw_only=True)
class GenerationOptions(SamplingOptions, GuidanceOptions):
    """How images are sampled from noise, for the commands that begin with noise."""

    solver: Spec | None = option(
        None,
        help="ODE solver of a score model's probability flow ODE",
        group="solvers",
        section=SAMPLING,
        default_name="heun",
    )
    sampler: Spec | None = option(
        None,
        help="sampler of the reverse-time SDE, or Langevin dynamics, instead of --solver",
        group="samplers",
        section=SAMPLING,
        shown="the probability flow ODE",
    )
    schedule: Spec | None = option(
        None,
        help="sigma schedule of a score model, with options such as --set schedule.rho=5 or schedule.sigma_max=50",
        group="schedules",
        listed=True,
        section=SAMPLING,
        shown="karras; time with --sampler",
    )
    process: Spec | None = option(
        None,
        help="diffusion process in whose native time and scale a score model is sampled, with options such as "
        "--set process.beta_max=15 or process.scaling=none",
        group="processes",
        listed=True,
        section=SAMPLING,
        shown="sigma as time, no scale; the model's own with --sampler",
    )
    ts: tuple[int, ...] | None = option(
        None,
        help="noise levels of a consistency model as indices into OpenAI's Karras schedule of 40, such as 0,22,39",
        check=ascending_integers(),
        metavar="N,N",
        section=SAMPLING,
    )
    convention: str | None = option(
        None,
        help="noise between consistency steps, and clipping: paper adds sqrt(t^2 - sigma_min^2), "
        "openai also clips every denoised image, of a score model too, ect adds t",
        choices=("paper", "openai", "ect"),
        section=SAMPLING,
        shown="paper",
    )
    gamma: float | None = option(
        None,
        help="new noise between the steps of a ctm or meanflow model: 0 adds none, 1 is multistep consistency sampling",
        check=between(0, 1),
        section=SAMPLING,
        shown="1",
    )


def model_option() -> Any:
    newest = "$CMTOOL_MODEL, else the newest run, else the bundled one"
    return option(None, help="checkpoint or run directory", flag="-m", section=INPUT, shown=newest)


def seed_option() -> Any:
    return option(0, help="seed of the first image; each image depends on its own alone", check=SEED, section=SAMPLING)


@dataclass(frozen=True, kw_only=True)
class SampleOptions(GenerationOptions):
    """Options of ``cmtool sample``."""

    command: ClassVar[str] = "sample"

    model: Path | None = model_option()
    n: int = option(64, help="number of images", check=at_least(1), section=SAMPLING)
    seed: int = seed_option()
    seeds: Seeds | None = option(
        None, help="seeds such as 0-63 or 1,2,5-10", metavar="SEEDS", section=SAMPLING, shown="n from --seed on"
    )
    noise: str = option(
        "cmtool",
        help="whose random numbers: those of EDM's or OpenAI's program draw published images again, from the published "
        "model, with its sampler and --device, and for OpenAI's also -n, --batch and --seed of the run",
        choices=("cmtool", "edm", "openai", "openai-indiv"),
        section=SAMPLING,
    )
    classes: str | None = option(
        None,
        help="class of each seed: balanced, uniform at random, or a FILE with a class on each line, taken in turn",
        metavar="RULE",
        section=SAMPLING,
        shown="balanced: they take turns",
        path=True,
    )
    batch: int | str = option(  # pyright: ignore[reportIncompatibleVariableOverride]
        "auto",
        help="images at a time; auto: fewer when memory runs out; does not change them",
        flag="-b",
        check=at_least_or(1, "auto"),
        metavar="N",
        section=MACHINE,
    )
    shard: str | None = option(
        None,
        help="make part K of N, for jobs that fill OUT together; below torchrun each rank has a part of it",
        check=part_of(),
        metavar="K/N",
        section=MACHINE,
        shown="1/1",
    )
    output: str = option(
        SAMPLES,
        help="FOLDER, FILE.tar, .zip, .npz, .npy, .png, or - for a tar of PNG; existing images are kept",
        flag="-o",
        metavar="OUT",
        section=OUTPUT,
        path=True,
    )
    overwrite: bool = option(
        False,
        help="write over files that sample did not make, and remove images of other models or settings from OUT",
        section=OUTPUT,
    )
    grid: Path | None = option(
        None,
        help="write the first 100 images side by side, too, with their classes",
        metavar="FILE.png",
        section=OUTPUT,
        shown="samples.png beside the folder samples",
    )
    show: bool | None = option(
        None, help="draw the first images in the terminal", section=OUTPUT, shown="where there is a terminal"
    )
