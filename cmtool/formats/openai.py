"""``.pt`` files of OpenAI's consistency_models and guided-diffusion: named tensors, and not a word about them.

The tensors settle most of the architecture; the rest is known of the published files, or must be said. Networks of
consistency_models predict under EDM's scalings, with the boundary if they are consistency models (Song et al. 2023,
arXiv 2303.01469); those of guided-diffusion predict the noise of 1000 steps, and their variance, which is not used.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from cmtool.core.denoiser import Denoiser, Preconditioning
from cmtool.core.discrete_processes import BETA_SCHEDULES, ddpm_sigmas
from cmtool.core.sigma_schedules import karras
from cmtool.errors import BadFile, UsageError, unknown_name
from cmtool.files.checkpoint import load_weights, without_memory
from cmtool.files.header import KINDS, Header
from cmtool.files.model_format import Format, LoadedModel
from cmtool.formats.openai_networks import (
    ARCHITECTURES,
    FILES,
    NAMES,
    ADMShape,
    HiddenOptions,
    PublishedFile,
    read_architecture,
)
from cmtool.formats.weight_files import read_weights, seal, shard_of
from cmtool.formats.wrappers import unwrap
from cmtool.options import registry

__all__ = ["openai"]

HEADS = {"heads", "head_width"}
HIDDEN = HEADS | {"heads_upsample"}
LATENT = "diffusion_model"  # stands before the names of networks that work on the codes of an encoder
UPSAMPLER = 6  # channels that one takes of colour images
STEPS = {"linear": "ddpm-1000", "cosine": "ddpm-cosine-1000"}


def recognize(path: Path) -> bool:
    """A file of torch.save or of safetensors has the names of ADM's weights, whatever was put around them."""
    return path.is_file() and shard_of(path, *NAMES)


@dataclass(frozen=True)
class OpenAIModel:
    """All that is needed to use the tensors; ``schedule`` is None for consistency_models."""

    kind: str
    backbone: dict[str, Any]
    shape: tuple[int, ...]
    classes: int
    schedule: str | None
    sigma_min: float
    sigma_max: float
    file: PublishedFile | None

    def preconditioning(self) -> Preconditioning:
        """What the network predicts."""
        boundary = self.sigma_min if self.kind == "consistency" else 0.0
        if self.schedule is None:
            return Preconditioning(0.5, boundary, "log-1000")
        return replace(Preconditioning.named(STEPS[self.schedule]), sigma_min=boundary)

    def levels(self) -> list[float]:
        """Where its authors jumped to."""
        if not self.file or not self.file.jumps:
            return []
        grid = karras(self.file.levels, self.sigma_min, self.sigma_max)
        return [float(grid[i]) for i in self.file.jumps]


def read_openai(
    path: Path,
    *,
    backbone: Mapping[str, Any] | None = None,
    kind: str | None = None,
    side: int | None = None,
    schedule: str | None = None,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    ema: bool = True,
    weights: str | None = None,
) -> LoadedModel[Denoiser]:
    """A network of consistency_models or guided-diffusion as a denoiser, with a header.

    ``backbone`` holds options of the backbone ``adm`` that the tensors do not show (``head_width``, or ``heads`` and
    ``heads_upsample``, and for guided-diffusion ``qkv``), ``side`` is that of the images; ``kind`` is "score" or
    "consistency", ``schedule`` that of guided-diffusion's steps, "linear" or "cosine". What is known of a published
    file need not be given. Of a trainer's dictionary the average is taken unless ``ema`` is false, or what stands at
    ``weights``. BadFile for a damaged file; UsageError that says what must be given, or what contradicts the file.
    """
    for what, word, words in (("kind of model", kind, KINDS), ("schedule", schedule, BETA_SCHEDULES)):
        if word is not None and word not in words:
            raise unknown_name(what, word, words)
    part, given = unwrap(path, read_weights(path), NAMES, ema, weights), dict(backbone or {})
    tensors = part.tensors
    if LATENT in part.place:
        raise BadFile(
            f"{path} holds a network of latent diffusion", "cmtool reads networks that make images themselves"
        )
    shown = read_architecture(path, tensors)
    check(path, shown, given, schedule)

    known = ARCHITECTURES.get(shown.layers)
    file, hidden = FILES.get(path.stem) if known else None, known or HiddenOptions()
    if HEADS & given.keys():  # what is said of the heads replaces whichever of the two is known
        hidden = replace(hidden, backbone={k: v for k, v in hidden.backbone.items() if k not in HIDDEN})
    spec = {**shown.backbone, **hidden.backbone, **given}
    side, schedule = side or hidden.side, schedule or hidden.schedule
    kind = kind or (file.kind if file else "score" if shown.guided else None)
    require(path, shown, spec, side, schedule, kind)
    assert side and kind

    if shown.guided and schedule:
        ladder = ddpm_sigmas(1000, schedule)
        sigma_min, sigma_max = max(sigma_min, float(ladder[0])), min(sigma_max, float(ladder[-1]))
    shape = (shown.channels, side, side)
    meant = OpenAIModel(kind, spec, shape, shown.classes, schedule, sigma_min, sigma_max, file)
    return build(path, tensors, meant, {"track": part.place} if part.averaged else {})


def check(path: Path, shown: ADMShape, given: Mapping[str, Any], schedule: str | None) -> None:
    """UsageError for an option that the tensors contradict; BadFile for networks that make no image from noise.

    An upsampler takes the image to enlarge beside the noisy one; with its variance it gives as many channels again.
    """
    if shown.outputs not in (shown.channels, 2 * shown.channels) or shown.channels == shown.outputs == UPSAMPLER:
        raise BadFile(
            f"{path} takes {shown.channels} channels and gives {shown.outputs}, as an upsampler does",
            "cmtool reads networks that make images from noise alone",
        )
    factory = registry.get("backbones", "adm")
    settled = dict(shown.backbone)
    if shown.guided and given.get("qkv") == "flash":
        settled["qkv"] = "new or legacy"
    for key, value in given.items():
        if key in settled and registry.typed(factory, f"backbone.{key}", key, value) != plain(settled[key]):
            raise UsageError(f"backbone.{key}={value} contradicts {path}, whose is {settled[key]}", "leave it out")
    if schedule and not shown.guided:
        raise UsageError(
            f"format.schedule={schedule} contradicts {path}, which knows levels, not steps", "leave it out"
        )


def plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def require(
    path: Path, shown: ADMShape, spec: Mapping[str, Any], side: int | None, schedule: str | None, kind: str | None
) -> None:
    """UsageError that names everything the file leaves open, with values that would be usual."""
    counted = spec.get("heads") if spec["attention"] and "heads_upsample" not in spec else None
    lacks = {
        "backbone.head_width=64": not HEADS & spec.keys(),
        f"backbone.heads_upsample={counted}": bool(counted),
        "backbone.qkv=legacy": "qkv" not in spec,
        "format.side=64": side is None,
        "format.schedule=linear": shown.guided and schedule is None,
        "format.kind=consistency": kind is None,
    }
    missing = [said for said, lacking in lacks.items() if lacking]
    if missing:
        keys = ", ".join(said.partition("=")[0] for said in missing)
        flags = " ".join(f"--set {said}" for said in missing)
        raise UsageError(
            f"{path} does not say {keys}", f"write what is true of it into {path}.yaml, or give it: such as {flags}"
        )


def build(
    path: Path, tensors: dict[str, torch.Tensor], meant: OpenAIModel, average: dict[str, str]
) -> LoadedModel[Denoiser]:
    """The denoiser, and what a converted file will say of it."""
    with without_memory():
        net = registry.build("backbones", meant.backbone, meant.shape, meant.classes)
    load_weights(path, net, tensors)
    model = Denoiser(net, meant.preconditioning())
    header = Header(
        kind=meant.kind,
        backbone=meant.backbone,
        preconditioning=asdict(model.preconditioning),
        data={
            "name": meant.file.data if meant.file else "unknown",
            "shape": list(meant.shape),
            "classes": [],
            "notice": "",
        },
        num_classes=meant.classes,
        sigma_min=meant.sigma_min,
        sigma_max=meant.sigma_max,
        sigmas=meant.levels(),
        method=f"openai {path.stem}" if meant.file else "openai",
        licence="MIT" if meant.file else "",
        average=average,
        sha256=seal(path),
    )
    return LoadedModel(model, header, path)


openai = Format(read_openai, recognize, seal)
