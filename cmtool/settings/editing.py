"""Options of the commands that change pictures or lead from one to another: edit and interp."""
# ruff: noqa: RUF009  (option() makes a dataclass field)

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from cmtool.options.fields import option
from cmtool.options.types import Spec, at_least, between, positive
from cmtool.settings.sampling import GenerationOptions, SamplingOptions, model_option
from cmtool.settings.shared import INPUT, OUTPUT, SAMPLING, SEED, TASK, overwrite_option

TASKS = "inpaint, outpaint, colorize, superres, denoise, deblur or stroke"


@dataclass(frozen=True, kw_only=True)
class EditOptions(SamplingOptions):
    """Options of ``cmtool edit``."""

    command: ClassVar[str] = "edit"

    operator: Spec = option(
        help=TASKS,
        group="operators",
        positional=True,
        metavar="TASK",
        required=("edit needs a task", TASKS),
    )
    input: str = option(
        help="an image, a folder, .zip, .tar, .npz or .npy of images, or - for a pipe of one of them",
        positional=True,
        metavar="IN",
        required=("edit needs an image", "cmtool edit inpaint photo.png --mask mask.png -o out.png"),
        path=True,
    )
    model: Path | None = model_option()
    truth: Path | None = option(
        None,
        help="what the results should be, to be measured against: an image, a folder or an archive; by name",
        section=INPUT,
    )
    fit: str = option(
        "resize",
        help="an image of another size than the model's: resize its middle, edit it tile by tile, or refuse it",
        choices=("resize", "tile", "refuse"),
        section=INPUT,
    )
    mask: Path | None = option(
        None,
        help="image of where inpaint may paint, or a folder or archive of one for each image, by name: white, or what "
        "is painted on a transparent layer",
        metavar="FILE",
        section=TASK,
    )
    white: str = option("fill", help="what white, or paint, means in the mask", choices=("fill", "keep"), section=TASK)
    box: tuple[int, ...] | None = option(
        None, help="inpaint this rectangle of the image: left, top, width, height", metavar="X,Y,W,H", section=TASK
    )
    random: float | None = option(
        None,
        help="inpaint this share of the pixels, drawn by --seed",
        check=between(0, 1),
        metavar="SHARE",
        section=TASK,
    )
    feather: int | None = option(
        None,
        help="pixels around the hole that fade into it",
        check=at_least(1, 10**5),
        section=TASK,
        shown="none: all kept",
    )
    margin: tuple[int, ...] | None = option(
        None,
        help="pixels that outpaint adds on each side, or at the top, left, bottom and right",
        check=at_least(0, 10**5),
        metavar="N[,N,N,N]",
        section=TASK,
        shown="an eighth of the model's size",
    )
    factor: int | None = option(
        None, help="how many times larger superres makes it", check=at_least(2, 10**5), section=TASK, shown="the task's"
    )
    blur: float | None = option(
        None, help="width of the blur that deblur undoes, in pixels", check=positive(), section=TASK, shown="1"
    )
    level: float | None = option(
        None,
        help="noise level (sigma) at which denoise and stroke start; a higher one keeps less",
        check=positive(),
        section=TASK,
        shown="estimated by denoise; 5.38",
    )
    klass: str | None = option(
        None,
        key="class",
        help="class, by name or number",
        metavar="CLASS",
        section=SAMPLING,
        shown="the one that fits best what is known",
    )
    solver: Spec | None = option(
        None,
        help="ODE solver of a score model, with projection on the known part, instead of --sampler",
        group="solvers",
        section=SAMPLING,
        shown="none",
    )
    sampler: Spec | None = option(
        None,
        help="sampler of a score model, which imposes the known part at every noise level",
        group="samplers",
        section=SAMPLING,
        default_name="predictor-corrector",
    )
    seed: int = option(0, help="seed of the first variant", check=SEED, section=SAMPLING)
    variants: int = option(
        1, help="results for each image, of as many seeds", check=at_least(1, 10**5), section=SAMPLING
    )
    report: Path | None = option(
        None, help="a sheet of inputs, what is known, results and truth", metavar="FILE.png", section=OUTPUT
    )
    output: str | None = option(
        None,
        help="FILE.png for one result, else FOLDER, FILE.npz, FILE.tar; - for a pipe",
        flag="-o",
        metavar="OUT",
        section=OUTPUT,
        shown="edited.png, or the folder edited",
        path=True,
    )
    overwrite: bool = overwrite_option()


@dataclass(frozen=True, kw_only=True)
class InterpOptions(GenerationOptions):
    """Options of ``cmtool interp``."""

    command: ClassVar[str] = "interp"
    refused: ClassVar = {"seed": ("interp takes its seeds as arguments", "cmtool interp 3 7")}

    a: str = option("0", help="seed of the first image, or an image", positional=True, metavar="FROM", path=True)
    b: str = option("1", help="seed of the last image, or an image", positional=True, metavar="TO", path=True)
    c: str | None = option(
        None, help="seed or image in the lower left corner of a grid", positional=True, metavar="C", path=True
    )
    d: str | None = option(
        None, help="seed or image in its lower right corner", positional=True, metavar="D", path=True
    )
    model: Path | None = model_option()
    encoder: Path | None = option(
        None,
        help="score model whose ODE turns images into noise, such as the teacher of a consistency model",
        metavar="FILE",
        section=INPUT,
        shown="the model; a consistency model searches for the noise",
    )
    frames: int = option(
        8, help="images from end to end, both counted", flag="-n", check=at_least(2, 10**5), section=OUTPUT
    )
    rows: int | None = option(
        None, help="images from top to bottom of a grid", check=at_least(2, 10**5), section=OUTPUT, shown="--frames"
    )
    fps: float = option(12.0, help="frames a second of an animation", check=between(0.02, 1000), section=OUTPUT)
    output: str = option(
        "interp.png",
        help="a strip or grid FILE.png, an animation FILE.webp or FILE.gif, FOLDER, FILE.npz, FILE.tar or -",
        flag="-o",
        metavar="OUT",
        section=OUTPUT,
        path=True,
    )
    overwrite: bool = overwrite_option()
