"""From the options of guidance to a guided model, and what it costs."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from cmtool.core.denoiser import Denoiser
from cmtool.core.guidance import EVERYWHERE, Guided, Unlabelled
from cmtool.core.noise import Noise
from cmtool.core.sampling.loops import CountNFE, last
from cmtool.errors import UsageError
from cmtool.files.header import Header
from cmtool.files.model_files import open_any
from cmtool.files.model_format import LoadedModel
from cmtool.pipelines.inputs import checkpoint_path
from cmtool.pipelines.sampler_setup import SamplerSetup
from cmtool.settings.shared import GuidanceOptions

__all__ = ["GuidedModel", "apply_guidance", "describe_guidance", "nfe"]

Warn = Callable[[str], None]


@dataclass(frozen=True)
class GuidedModel(LoadedModel[Guided]):
    """A guided model; ``guide`` is the header of the weaker one, which may be its own."""

    guide: Header = field(kw_only=True)


def apply_guidance(
    loaded: LoadedModel[Denoiser], options: GuidanceOptions, warn: Warn | None = None
) -> LoadedModel[Denoiser | Guided]:
    """The model as the options guide it; itself at weight 1.

    UsageError for a model that cannot be guided so. One that is known never to have met an image without its class
    gets a warning, where somebody is there to hear it, and is refused otherwise.
    """
    if options.guidance == 1:
        _refuse_idle(options)
        return loaded
    if loaded.header.kind != "score":
        raise UsageError(
            f"guidance blends denoisers, and {loaded.path} is a consistency model, whose jump is not linear in them",
            f"distil a guided teacher: cmtool distill --teacher FILE --guidance {options.guidance:g}",
        )
    guide = options.guidance_model
    weaker = _weaker(loaded, guide) if guide else _classless(loaded, options, warn)
    weak = weaker.model if weaker.header.num_classes and guide else Unlabelled(weaker.model)
    low, high = options.guidance_interval or EVERYWHERE
    guided = Guided(loaded.model, weak, options.guidance, (low, high))
    return GuidedModel(guided, loaded.header, loaded.path, loaded.remarks, guide=weaker.header)


def _refuse_idle(options: GuidanceOptions) -> None:
    for given, flag in (
        (options.guidance_model, "--guidance-model"),
        (options.guidance_interval, "--guidance-interval"),
    ):
        if given is not None:
            raise UsageError(f"{flag} does nothing while the weight of guidance is 1", "add --guidance 2, say")


def _weaker(loaded: LoadedModel[Denoiser], guide: Path) -> LoadedModel[Denoiser]:
    """The model of ``guide``, on the same device; UsageError for one of other images or classes."""
    guide = checkpoint_path(guide)
    weak = open_any(guide, loaded.device)
    ours, theirs, path = loaded.header, weak.header, loaded.path
    if theirs.kind != "score":
        raise UsageError(
            f"{guide} is a consistency model, and only a score model can guide", "name another --guidance-model"
        )
    if theirs.shape != ours.shape:
        sizes = ["x".join(map(str, shape)) for shape in (theirs.shape, ours.shape)]
        raise UsageError(
            f"{guide} makes {sizes[0]} images, and {path} makes {sizes[1]}", "name another --guidance-model"
        )
    if theirs.num_classes not in (0, ours.num_classes):
        counts = f"{guide} knows {theirs.num_classes} classes, and {path} knows {ours.num_classes or 'none'}"
        raise UsageError(counts, "name another --guidance-model")
    weak.model.requires_grad_(False)
    return weak


def _classless(loaded: LoadedModel[Denoiser], options: GuidanceOptions, warn: Warn | None) -> LoadedModel[Denoiser]:
    """The model itself, to be used without its class; UsageError where it knows none, or cannot do without it."""
    path = loaded.path
    if not loaded.header.num_classes:
        again = f"--guidance {options.guidance:g} --guidance-model WEAK.safetensors"
        raise UsageError(
            f"{path} was trained without classes, and guidance needs them or a weaker model",
            f"train a smaller or shorter one on the same data and add it: {again}",
        )
    if _never_classless(loaded.header):
        said = (
            f"{path} was trained without --label-dropout, so what it makes of an image without its class is arbitrary"
        )
        hint = "train it with --label-dropout 0.1, or name a weaker model with --guidance-model FILE"
        if warn is None:
            raise UsageError(said, hint)
        warn(f"{said}; {hint}")
    return loaded


def _never_classless(header: Header) -> bool:
    """Whether the file says that every image came with its class; one that says nothing is believed."""
    return bool(header.options) and not header.options.get("label_dropout")


def describe_guidance(options: GuidanceOptions) -> dict[str, Any] | None:
    """The guidance of a result, as JSON holds it."""
    if options.guidance == 1:
        return None
    guide = options.guidance_model and str(options.guidance_model)
    return {"weight": options.guidance, "interval": options.guidance_interval, "guide": guide}


def nfe(plan: SamplerSetup, model: Denoiser | Guided) -> int | None:
    """Network evaluations for each image; those of a guided model are counted on a walk without a network."""
    if plan.nfe is None or not isinstance(model, Guided):
        return plan.nfe
    counted = CountNFE(lambda x, sigma, labels=None: 0 * x, model.cost)
    last(plan.sampler(counted, torch.zeros(1, 1), Noise([0]), None))
    return counted.calls
