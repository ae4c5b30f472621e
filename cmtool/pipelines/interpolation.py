"""What ``interp`` goes between: seeds, and images turned into noise."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cmtool.core.denoiser import Denoiser
from cmtool.core.deterministic import in_fixed_batches, worker_pool
from cmtool.core.editing.operators import stroke
from cmtool.core.guidance import Guided
from cmtool.core.inversion import invert_by_search, invert_ode
from cmtool.core.pixels import check_outputs, to_model
from cmtool.core.sampling.samplers import MultistepSampler, ODESampler
from cmtool.errors import Hint, Run, Setting, UsageError
from cmtool.files.model_files import open_any
from cmtool.files.model_format import LoadedModel
from cmtool.files.picture_files import read_picture
from cmtool.options.types import LARGEST_SEED
from cmtool.pipelines.batching import chunk_size, num_threads
from cmtool.pipelines.canvas import fit_to
from cmtool.pipelines.classes import labels_of
from cmtool.pipelines.classify import classify
from cmtool.pipelines.inputs import checkpoint_path, class_name
from cmtool.pipelines.reporter import Reporter
from cmtool.pipelines.sampler_setup import SamplerSetup
from cmtool.settings import InterpOptions

__all__ = ["Endpoint", "find_endpoints", "labels_between"]


@dataclass(frozen=True)
class Endpoint:
    """A seed; or an image, with the noise [C, H, W] that it was turned into and its pixels uint8 [C, H, W]."""

    name: str
    seed: int = 0
    label: int | None = None
    noise: Tensor | None = None
    picture: Tensor | None = None


def find_endpoints(
    words: list[str],
    model: LoadedModel[Denoiser | Guided],
    plan: SamplerSetup,
    options: InterpOptions,
    klass: int | None,
    console: Reporter,
) -> list[Endpoint]:
    """An end for each word. UsageError for a word that is neither a seed nor an image."""
    return [
        _seed(word, model, klass) if word.isdecimal() else _image(word, model, plan, options, klass, console)
        for word in words
    ]


def _seed(word: str, model: LoadedModel[Denoiser | Guided], klass: int | None) -> Endpoint:
    seed = int(word) if len(word) < 25 else LARGEST_SEED + 1
    if seed > LARGEST_SEED:
        raise UsageError(f"a seed is at most {LARGEST_SEED}, not {word}")
    labels = labels_of([seed], model.header.num_classes, klass)
    return Endpoint(word, seed, None if labels is None else int(labels[0]))


def _image(
    word: str,
    model: LoadedModel[Denoiser | Guided],
    plan: SamplerSetup,
    options: InterpOptions,
    klass: int | None,
    console: Reporter,
) -> Endpoint:
    if not Path(word).suffix:
        raise UsageError(
            f"an end is a seed or an image, not '{word}'",
            Hint("{}, {}", Run("interp", "3", "7"), Run("interp", "a.png", "b.png")),
        )
    header = model.header
    if len(header.shape) != 3:
        raise UsageError(
            "this model makes points, which have no image", Hint("give two seeds: {}", Run("interp", "3", "7"))
        )
    if not isinstance(plan.sampler, ODESampler | MultistepSampler):
        raise UsageError(
            "images become noise along the ODE, which this sampler leaves", Hint("leave out {}", Setting("sampler"))
        )
    picture = torch.from_numpy(fit_to(read_picture(word), word, header.shape, console.say))
    device = model.device
    x, sigma = to_model(picture)[None].to(device), float(plan.sigmas[0])
    if header.num_classes and klass is None:
        klass = classify(model, stroke(x))
        found = f"{word}: class {class_name(header, klass)} fits best"
        console.say(Hint("{}; {} asks for another", found, Setting("class")))
    labels = None if klass is None or not header.num_classes else torch.tensor([klass], device=device)
    return Endpoint(word, 0, klass, _invert(x, sigma, labels, model, options)[0].cpu(), picture)


def _invert(
    x: Tensor, sigma: float, labels: Tensor | None, model: LoadedModel[Denoiser | Guided], options: InterpOptions
) -> Tensor:
    """Along the flow of the encoder, or of the model where it is a score model; else by searching."""
    guide = _inversion_model(model, options.encoder) if options.encoder else model
    if guide.header.kind == "score":
        with in_fixed_batches(guide.model, chunk_size(guide.header.shape, x.device), num_threads(x.device)) as denoise:
            classes = labels if guide.header.num_classes else None
            return invert_ode(denoise, x, guide.header.sigma_min, sigma, classes)
    with worker_pool(1):  # a gradient spread over cores would round differently with their number
        for parameter in model.model.parameters():
            parameter.requires_grad_(False)
        return invert_by_search(check_outputs(model.model), x, sigma, labels)


def _inversion_model(model: LoadedModel[Denoiser | Guided], path: Path) -> LoadedModel[Denoiser]:
    path = checkpoint_path(path)
    encoder = open_any(path, model.device)
    if encoder.header.kind != "score":
        raise UsageError(
            f"{path} is a consistency model, and only a score model has a way up",
            Hint("name another {}", Setting("encoder")),
        )
    if encoder.header.shape != model.header.shape or encoder.header.num_classes not in (0, model.header.num_classes):
        raise UsageError(f"{path} makes other images than the model", "name the teacher of the model")
    return encoder


def labels_between(ends: list[Endpoint], frames: int, rows: int) -> Tensor:
    """The class of every frame, int64 [rows frames]: that of the nearest end."""
    labels = torch.tensor([end.label for end in ends]).view(-1, 2)
    across = (torch.arange(frames) * 2 >= frames).long()
    down = (torch.arange(rows) * 2 >= rows).long() if len(labels) == 2 else torch.zeros(1, dtype=torch.long)
    return labels[down][:, across].flatten()
