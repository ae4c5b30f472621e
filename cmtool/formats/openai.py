"""``.pt`` files of OpenAI's consistency_models and guided-diffusion: named tensors, and not a word about them.

The tensors settle most of the architecture; the rest is known of the published files, or must be said. Networks of
consistency_models predict under EDM's scalings, with the boundary if they are consistency models (Song et al. 2023,
arXiv 2303.01469); those of guided-diffusion predict the noise of 1000 steps, and their variance, which is not used.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch

from cmtool.core.denoiser import Denoiser, Preconditioning
from cmtool.core.discrete_processes import BETA_SCHEDULES, ddpm_sigmas
from cmtool.core.sigma_schedules import karras
from cmtool.errors import BadFile, UsageError
from cmtool.files.checkpoint import load_weights
from cmtool.files.header import Header
from cmtool.files.model_format import Format, LoadedModel
from cmtool.formats.common import EmaOption, KindOption, SideOption, build_said, check_backbone, require, unknown_data
from cmtool.formats.openai_networks import (
    ARCHITECTURES,
    FILES,
    NAMES,
    ADMShape,
    HiddenOptions,
    PublishedFile,
    read_adm_shape,
)
from cmtool.formats.weight_files import digest_shards, holds_weights, read_weights
from cmtool.formats.wrappers import unwrap
from cmtool.options.plugin_option import Option
from cmtool.options.types import positive

__all__ = ["openai"]

HEADS = {"num_heads", "num_head_channels"}
HIDDEN = HEADS | {"num_heads_upsample"}
LATENT = "diffusion_model"  # stands before the names of networks that work on the codes of an encoder
UPSAMPLER = 6  # channels that one takes of colour images
STEPS = {"linear": "ddpm-1000", "cosine": "ddpm-cosine-1000"}


def is_openai(path: Path) -> bool:
    """A file of torch.save or of safetensors has the names of ADM's weights, whatever was put around them."""
    return path.is_file() and holds_weights(path, *NAMES)


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

    def sigmas(self) -> list[float]:
        """The noise levels of its authors' consistency steps after the first."""
        if not self.file or not self.file.ts:
            return []
        grid = karras(self.file.steps, self.sigma_min, self.sigma_max)
        return [float(grid[i]) for i in self.file.ts]


def read_openai(
    path: Path,
    backbone: Mapping[str, Any],
    *,
    kind: KindOption = None,
    side: SideOption = None,
    schedule: Annotated[
        str | None, Option("the beta schedule of guided-diffusion's steps", choices=tuple(BETA_SCHEDULES))
    ] = None,
    sigma_min: Annotated[float, Option("lowest noise level; of a consistency model its boundary", positive())] = 0.002,
    sigma_max: Annotated[float, Option("highest noise level", positive())] = 80.0,
    ema: EmaOption = True,
    weights: Annotated[
        str | None, Option("where the network stands in a trainer's dictionary, such as ema_0.9999")
    ] = None,
) -> LoadedModel[Denoiser]:
    """ADM networks of OpenAI's consistency_models and guided-diffusion.

    Formula: ``D(x, sigma)`` under EDM's preconditioning of a network with ``c_noise = 250 ln sigma``; of
    guided-diffusion ``D(x, sigma) = x - sigma eps``, where the network predicts the noise eps of 1000 numbered steps
    Paper: Song et al. 2023, arXiv 2303.01469.
    Use: for the published ``.pt`` files, of which all is known, and for what others trained with these programs.
    The tensors settle most of the architecture; ``backbone`` holds what they do not show (``num_head_channels``, or
    ``num_heads`` and ``num_heads_upsample``, and of guided-diffusion ``qkv``). Of a trainer's dictionary the average is
    taken unless ``ema`` is false, or what stands at ``weights``.

    BadFile for a damaged file; UsageError that says what must be given, or what contradicts the file.
    """
    part, given = unwrap(path, read_weights(path), NAMES, ema, weights), dict(backbone)
    tensors = part.tensors
    if LATENT in part.place:
        raise BadFile(
            f"{path} holds a network of latent diffusion", "cmtool reads networks that make images themselves"
        )
    shown = read_adm_shape(path, tensors)
    known = ARCHITECTURES.get(shown.layers)
    file, hidden = FILES.get(path.stem) if known else None, known or HiddenOptions()
    if HEADS & given.keys():  # what is said of the heads replaces whichever of the two is known
        hidden = replace(hidden, backbone={k: v for k, v in hidden.backbone.items() if k not in HIDDEN})
    side = side or hidden.side
    if side:
        shown = replace(shown, backbone={**shown.backbone, "attn_resolutions": shown.attn_resolutions(side)})
    check_adm(path, shown, given, schedule)
    spec, schedule = {**shown.backbone, **hidden.backbone, **given}, schedule or hidden.schedule
    kind = kind or (file.kind if file else "score" if shown.guided else None)
    require(path, left_open(shown, spec, side, schedule, kind))
    assert side and kind

    if shown.guided and schedule:
        schedule_sigmas = ddpm_sigmas(1000, schedule)
        sigma_min, sigma_max = max(sigma_min, float(schedule_sigmas[0])), min(sigma_max, float(schedule_sigmas[-1]))
    shape = (shown.channels, side, side)
    meant = OpenAIModel(kind, spec, shape, shown.classes, schedule, sigma_min, sigma_max, file)
    return load_adm(path, tensors, meant, {"ema": part.place} if part.averaged else {})


def check_adm(path: Path, shown: ADMShape, given: Mapping[str, Any], schedule: str | None) -> None:
    """UsageError for an option that the tensors contradict; BadFile for networks that make no image from noise.

    An upsampler takes the image to enlarge beside the noisy one; with its variance it gives as many channels again.
    """
    if shown.outputs not in (shown.channels, 2 * shown.channels) or shown.channels == shown.outputs == UPSAMPLER:
        raise BadFile(
            f"{path} takes {shown.channels} channels and gives {shown.outputs}, as an upsampler does",
            "cmtool reads networks that make images from noise alone",
        )
    known = dict(shown.backbone)
    if shown.guided and given.get("qkv") == "flash":
        known["qkv"] = "new or legacy"
    check_backbone(path, known, given, free=())
    if schedule and not shown.guided:
        raise UsageError(
            f"format.schedule={schedule} contradicts {path}, which knows noise levels, not steps", "leave it out"
        )


def left_open(
    shown: ADMShape, spec: Mapping[str, Any], side: int | None, schedule: str | None, kind: str | None
) -> dict[str, Any]:
    """Everything that neither file nor user says, with values that are common."""
    counted = spec.get("num_heads") if shown.attention_levels and "num_heads_upsample" not in spec else None
    common = (
        ("backbone.num_head_channels", 64, not HEADS & spec.keys()),
        ("backbone.num_heads_upsample", counted, bool(counted)),
        ("backbone.qkv", "legacy", "qkv" not in spec),
        ("format.side", 64, side is None),
        ("format.schedule", "linear", shown.guided and schedule is None),
        ("format.kind", "consistency", kind is None),
    )
    return {key: value for key, value, missing in common if missing}


def load_adm(
    path: Path, tensors: dict[str, torch.Tensor], meant: OpenAIModel, average: dict[str, str]
) -> LoadedModel[Denoiser]:
    """The denoiser, and what a converted file will say of it."""
    net = build_said(meant.backbone, meant.shape, meant.classes)
    load_weights(path, net, tensors)
    model = Denoiser(net, meant.preconditioning())
    header = Header(
        kind=meant.kind,
        backbone=meant.backbone,
        preconditioning=asdict(model.preconditioning),
        data=unknown_data(meant.shape, meant.file.data if meant.file else "unknown"),
        num_classes=meant.classes,
        sigma_min=meant.sigma_min,
        sigma_max=meant.sigma_max,
        sigmas=meant.sigmas(),
        method=f"openai {path.stem}" if meant.file else "openai",
        licence="MIT" if meant.file else "",
        average=average,
        sha256=digest_shards(path),
    )
    return LoadedModel(model, header, path)


openai = Format(read_openai, is_openai, digest_shards)
