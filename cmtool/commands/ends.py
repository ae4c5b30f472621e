"""What ``interp`` goes between: seeds, and images turned into noise."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cmtool.commands.canvas import fitted_to
from cmtool.commands.console import Console
from cmtool.commands.generate import labels_of, piece, threads
from cmtool.commands.guess import guessed
from cmtool.commands.models import checkpoint, class_name
from cmtool.commands.plan import Plan
from cmtool.core.denoiser import Denoiser
from cmtool.core.encoding import along_flow, by_search
from cmtool.core.finite import finite
from cmtool.core.guidance import Guided
from cmtool.core.operators import stroke
from cmtool.core.pixels import to_model
from cmtool.core.steady import steady
from cmtool.core.walks import AlongODE, Jumps
from cmtool.core.workers import workers
from cmtool.errors import UsageError
from cmtool.files.opening import open_any
from cmtool.files.pictures import read_picture
from cmtool.settings import InterpOptions
from cmtool.values import LARGEST_SEED

__all__ = ["End", "ends_of"]


@dataclass(frozen=True)
class End:
    """A seed; or an image, with the noise [C, H, W] that it was turned into and its pixels uint8 [C, H, W]."""

    name: str
    seed: int = 0
    label: int | None = None
    noise: Tensor | None = None
    picture: Tensor | None = None


def ends_of(
    words: list[str], model: Denoiser | Guided, plan: Plan, options: InterpOptions, klass: int | None, console: Console
) -> list[End]:
    """An end for each word. UsageError for a word that is neither a seed nor an image."""
    return [
        _seed(word, model, klass) if word.isdecimal() else _image(word, model, plan, options, klass, console)
        for word in words
    ]


def _seed(word: str, model: Denoiser | Guided, klass: int | None) -> End:
    seed = int(word) if len(word) < 25 else LARGEST_SEED + 1
    if seed > LARGEST_SEED:
        raise UsageError(f"a seed is at most {LARGEST_SEED}, not {word}")
    labels = labels_of([seed], model.header.conditional, klass)
    return End(word, seed, None if labels is None else int(labels[0]))


def _image(
    word: str, model: Denoiser | Guided, plan: Plan, options: InterpOptions, klass: int | None, console: Console
) -> End:
    if not Path(word).suffix:
        raise UsageError(f"an end is a seed or an image, not '{word}'", "cmtool interp 3 7, cmtool interp a.png b.png")
    header = model.header
    if len(header.shape) != 3:
        raise UsageError("this model makes points, which have no image", "give two seeds: cmtool interp 3 7")
    if not isinstance(plan.walk, AlongODE | Jumps):
        raise UsageError("images become noise along the ODE, which this solver leaves", "leave out --solver")
    picture = torch.from_numpy(fitted_to(read_picture(word), word, header.shape, console.say))
    device = next(model.parameters()).device
    x, sigma = to_model(picture)[None].to(device), float(plan.levels[0])
    if header.conditional and klass is None:
        klass = guessed(model, stroke(x))
        console.say(f"{word}: class {class_name(header, klass)} fits best; --class asks for another")
    labels = None if klass is None or not header.conditional else torch.tensor([klass], device=device)
    return End(word, 0, klass, _encoded(x, sigma, labels, model, options)[0].cpu(), picture)


def _encoded(
    x: Tensor, sigma: float, labels: Tensor | None, model: Denoiser | Guided, options: InterpOptions
) -> Tensor:
    """Along the flow of the encoder, or of the model where it is a score model; else by searching."""
    guide = _encoder(model, options.encoder) if options.encoder else model
    if guide.header.kind == "score":
        with steady(guide, piece(guide.header.shape, x.device), threads(x.device)) as steadied:
            told = labels if guide.header.conditional else None
            return along_flow(steadied, x, guide.header.sigma_min, sigma, told)
    with workers(1):  # a gradient spread over cores would round differently with their number
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        return by_search(finite(model), x, sigma, labels)


def _encoder(model: Denoiser | Guided, path: Path) -> Denoiser:
    path = checkpoint(path)
    encoder = open_any(path, next(model.parameters()).device)
    if encoder.header.kind != "score":
        raise UsageError(
            f"{path} is a consistency model, and only a score model has a way up", "name another --encoder"
        )
    if encoder.header.shape != model.header.shape or encoder.header.conditional not in (0, model.header.conditional):
        raise UsageError(f"{path} makes other images than the model", "name the teacher of the model")
    return encoder
