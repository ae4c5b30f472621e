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
from cmtool.errors import Advice, Hint, Run, Setting, UsageError
from cmtool.files.header import Header
from cmtool.files.model_files import open_any
from cmtool.files.model_format import LoadedModel
from cmtool.pipelines.inputs import checkpoint_path
from cmtool.pipelines.sampler_setup import SamplerSetup
from cmtool.settings.shared import GuidanceOptions

__all__ = ["GuidedModel", "apply_guidance", "describe_guidance", "nfe"]

Warn = Callable[[Advice], None]


@dataclass(frozen=True)
class GuidedModel(LoadedModel[Guided]):
    """A guided model; ``guide`` is the header of the weaker one, which may be its own."""

    guide: Header = field(kw_only=True)


def apply_guidance(
    loaded: LoadedModel[Denoiser], options: GuidanceOptions, warn: Warn | None = None
) -> LoadedModel[Denoiser | Guided]:
    """The model as the options guide it; itself at weight 1.

    UsageError for a model that cannot be guided so. One that is known never to have met an image without its class
    gets a warning where one can be shown, and is refused otherwise.
    """
    if options.guidance == 1:
        _refuse_idle(options)
        return loaded
    if loaded.header.kind != "score":
        raise UsageError(
            f"guidance blends denoisers, and {loaded.path} is a consistency model, whose steps are not linear in them",
            Hint("distil a guided teacher: {}", Run("distill", teacher="FILE", guidance=f"{options.guidance:g}")),
        )
    guide = options.guidance_model
    weaker = _weaker(loaded, guide) if guide else _classless(loaded, options, warn)
    weak = weaker.model if weaker.header.num_classes and guide else Unlabelled(weaker.model)
    low, high = options.guidance_interval or EVERYWHERE
    guided = Guided(loaded.model, weak, options.guidance, (low, high))
    return GuidedModel(guided, loaded.header, loaded.path, loaded.remarks, guide=weaker.header)


def _refuse_idle(options: GuidanceOptions) -> None:
    given = {"guidance_model": options.guidance_model, "guidance_interval": options.guidance_interval}
    for key, value in given.items():
        if value is not None:
            idle = Hint("{} does nothing while the weight of guidance is 1", Setting(key))
            raise UsageError(idle, Hint("add {}, say", Setting("guidance", 2)))


def _weaker(loaded: LoadedModel[Denoiser], guide: Path) -> LoadedModel[Denoiser]:
    """The model of ``guide``, on the same device; UsageError for one of other images or classes."""
    guide = checkpoint_path(guide)
    weak = open_any(guide, loaded.device)
    ours, theirs, path = loaded.header, weak.header, loaded.path
    another = Hint("name another {}", Setting("guidance_model"))
    if theirs.kind != "score":
        raise UsageError(f"{guide} is a consistency model, and only a score model can guide", another)
    if theirs.shape != ours.shape:
        sizes = ["x".join(map(str, shape)) for shape in (theirs.shape, ours.shape)]
        raise UsageError(f"{guide} makes {sizes[0]} images, and {path} makes {sizes[1]}", another)
    if theirs.num_classes not in (0, ours.num_classes):
        counts = f"{guide} knows {theirs.num_classes} classes, and {path} knows {ours.num_classes or 'none'}"
        raise UsageError(counts, another)
    weak.model.requires_grad_(False)
    return weak


def _classless(loaded: LoadedModel[Denoiser], options: GuidanceOptions, warn: Warn | None) -> LoadedModel[Denoiser]:
    """The model itself, to be used without its class; UsageError where it knows none, or cannot do without it."""
    path = loaded.path
    if not loaded.header.num_classes:
        weight, weak = Setting("guidance", f"{options.guidance:g}"), Setting("guidance_model", "WEAK.safetensors")
        raise UsageError(
            f"{path} was trained without classes, and guidance needs them or a weaker model",
            Hint("train a smaller or shorter one on the same data and add it: {} {}", weight, weak),
        )
    if _never_classless(loaded.header):
        arbitrary = "so what it makes of an image without its class is arbitrary"
        said = Hint("{} was trained without {}, {}", str(path), Setting("label_dropout"), arbitrary)
        dropout, weak = Setting("label_dropout", 0.1), Setting("guidance_model", "FILE")
        hint = Hint("train it with {}, or name a weaker model with {}", dropout, weak)
        if warn is None:
            raise UsageError(said, hint)
        warn(Hint("{}; {}", said, hint))
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
    """NFE for each image; those of a guided model are counted by sampling without a network."""
    if plan.nfe is None or not isinstance(model, Guided):
        return plan.nfe
    counted = CountNFE(lambda x, sigma, labels=None: 0 * x, model.cost)
    last(plan.sampler(counted, torch.zeros(1, 1), Noise([0]), None))
    return counted.calls
