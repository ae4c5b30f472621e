"""``edit``: inpaint, colour, enlarge, denoise or paint from strokes, with a model that was trained for none of it."""

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cmtool import registry
from cmtool.commands.console import Console
from cmtool.commands.generate import labels_of
from cmtool.commands.models import class_index, describe, open_model
from cmtool.commands.plan import check_levels
from cmtool.core.denoiser import Denoiser, like
from cmtool.core.grids import karras
from cmtool.core.noise import START, Noise
from cmtool.core.operators import Operator
from cmtool.core.pixels import to_model, to_pixels
from cmtool.core.samplers import clipped, last, multistep
from cmtool.errors import UsageError
from cmtool.files.header import Header
from cmtool.files.pictures import check_target, read_picture, write_picture
from cmtool.pictures import with_channels
from cmtool.settings import EditOptions
from cmtool.training.devices import device, use_threads

__all__ = ["edit_levels", "run"]

TURNS = 200  # what a lone blue channel near black needs to come within half a grey level
STEPS = 20  # of a task that starts from pure noise: the walk must have time to grow around what is known


def run(options: EditOptions, console: Console) -> None:
    """Edit one picture."""
    check_target(options.output)
    if options.input == str(options.mask) == "-":
        raise UsageError("standard input is the picture or the mask", "give one of them as a file")
    use_threads(options.threads)
    where = device(options.device)
    model, path = open_model(options.model, where, console, options.format, options.backbone)
    header = model.header
    if len(header.shape) != 3:
        raise UsageError(f"edit works on images, and {path} makes points")
    if header.kind != "consistency":
        raise UsageError(
            f"edit needs a consistency model, and {path} is a {header.kind} model",
            f"distil it first: cmtool distill --teacher {path}",
        )
    picture = read_picture(options.input)
    reference = prepare(picture, options, header, console)
    given = {
        "mask": mask_of(options, picture, header),
        "factor": factor_of(options, picture, header),
        "level": options.level,
    }
    spec = {"name": options.operator.name, **options.operator}
    refuse_unused(spec["name"], given)
    operator = registry.build(
        "operators", spec, reference.to(where), **{k: v for k, v in given.items() if v is not None}
    )

    levels = edit_levels(operator, header, options.steps, options.levels)
    check_levels(header, options.steps if options.levels else None, levels.tolist())
    noise = Noise([options.seed])
    labels = labels_of([options.seed], header.conditional, class_index(header, options.klass))
    image = apply(model, operator, levels, noise, None if labels is None else labels.to(where))
    error = float((operator.known_part(image) - operator.known_part(operator.reference)).abs().max()) * 127.5
    write_picture(options.output, to_pixels(image)[0].cpu())
    console.say(f"{len(levels)} network evaluations; the known part is off by at most {error:.2g} of 255 grey levels")
    document = {
        "model": describe(model, path),
        "task": spec["name"],
        "input": options.input,
        "output": options.output,
        "seed": options.seed,
        "levels": levels.tolist(),
        "evaluations": len(levels),
        "known_error": error,
    }
    if options.output != "-":
        console.result(document, options.output)


def apply(model: Denoiser, operator: Operator, levels: Tensor, noise: Noise, labels: Tensor | None) -> Tensor:
    """Walk from the operator's start to an image, putting the known part back after every jump."""
    x = operator.start
    if not operator.noisy:
        x = x + like(levels[0], x) * noise.normal(x.shape[1:], START).to(x)
    sigma_min = model.preconditioning.sigma_min
    walk = multistep(clipped(model), x, levels, noise, labels, operator.impose, sigma_min)
    return settled(last(walk), operator)


def settled(x: Tensor, operator: Operator) -> Tensor:
    """An image in [-1, 1] that has the known part, found by giving it the one and the other in turn.

    Clipping alone would change what is known: the mean of a patch, or the grey value of a pixel. Both sets are convex
    and meet, so the turns converge (von Neumann's alternating projections).
    """
    for _ in range(TURNS):
        x = operator.impose(x.clamp(-1, 1))
    return x.clamp(-1, 1)


def edit_levels(operator: Operator, header: Header, steps: int | None, levels: Any) -> Tensor:
    """Given levels, else ``steps`` of the Karras grid from where the task starts.

    A task that starts part of the way needs few: one for denoising, and 5.38 then 2.24 for strokes as in the paper.
    """
    if levels:
        return torch.tensor(list(levels), dtype=torch.float64)
    first = operator.level or header.sigma_max
    if operator.noisy and steps in (None, 1):
        return torch.tensor([first], dtype=torch.float64)
    count = steps or (STEPS if operator.level is None else 2)
    if operator.level is not None and count == 2:
        return torch.tensor([first, first * 2.24 / 5.38], dtype=torch.float64)
    return karras(count + 1, header.sigma_min, first)[:-1]


def prepare(picture: np.ndarray, options: EditOptions, header: Header, console: Console) -> Tensor:
    """The picture as the model sees it, [1, C, H, W] in [-1, 1]: its channels, cropped and resized where need be."""
    channels, side, _ = header.shape
    _, height, width = picture.shape
    if options.operator.name == "superres" and max(height, width) < side:
        if height != width or side % height:
            raise UsageError(
                f"the model's {side}x{side} is no multiple of {width}x{height}, the size of {options.input}"
            )
        picture = np.repeat(np.repeat(picture, side // height, axis=1), side // width, axis=2)
    elif (height, width) != (side, side):
        console.say(f"{options.input} is {width}x{height}: its middle square was resized to the model's {side}x{side}")
        picture = resized(picture, side, Image.Resampling.LANCZOS)
    return to_model(torch.from_numpy(with_channels(picture, channels)))[None]


def mask_of(options: EditOptions, picture: np.ndarray, header: Header) -> Tensor | None:
    """[1, 1, H, W] in [0, 1], 1 where pixels are to be filled in."""
    if options.mask is None:
        return None
    mask = with_channels(read_picture(options.mask), 1)
    if mask.shape[1:] != picture.shape[1:]:
        theirs, ours = (f"{shape[2]}x{shape[1]}" for shape in (mask.shape, picture.shape))
        raise UsageError(
            f"the mask {options.mask} is {theirs}, and {options.input} is {ours}", "make them the same size"
        )
    if mask.shape[1:] != header.shape[1:]:
        mask = resized(mask, header.shape[1], Image.Resampling.NEAREST)
    return torch.from_numpy(mask)[None] / 255


def factor_of(options: EditOptions, picture: np.ndarray, header: Header) -> int | None:
    """How many times a small picture must grow to reach the size of the model."""
    if options.operator.name != "superres" or picture.shape[1] >= header.shape[1]:
        return options.factor
    factor = header.shape[1] // picture.shape[1]
    if options.factor not in (None, factor):
        raise UsageError(
            f"{options.input} grows {factor} times to the model's {header.shape[1]} pixels, not {options.factor}"
        )
    return factor


def refuse_unused(task: str, given: dict[str, Any]) -> None:
    """An option that the task would silently ignore is a mistake."""
    takes = registry.options(registry.get("operators", task))
    for name, value in given.items():
        if value is not None and name not in takes:
            raise UsageError(
                f"{task} takes no --{name}", f"it takes: {', '.join(f'--{o}' for o in takes) or 'no options'}"
            )


def resized(picture: np.ndarray, side: int, filter: Image.Resampling) -> np.ndarray:
    """The middle square at ``side`` pixels."""
    _, height, width = picture.shape
    short = min(height, width)
    left, top = (width - short) // 2, (height - short) // 2
    planes = [
        Image.fromarray(plane[top : top + short, left : left + short]).resize((side, side), filter) for plane in picture
    ]
    return np.stack([np.asarray(plane) for plane in planes])
