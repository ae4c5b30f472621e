"""Folders of diffusers: a pipeline of a consistency model or of numbered steps (DDPM), or a UNet2DModel alone.

A pipeline says all that is needed, and so does the scheduler beside a network in it. Of a network alone it is not known
what it predicts: whether it is a consistency model must be said, and unless ``schedule`` says that it is conditioned on
numbers of steps, it is taken to be used under EDM's scalings with ``c_noise = 250 ln sigma``, as OpenAI's consistency
models are (Song et al. 2023, arXiv 2303.01469).
"""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

from torch import Tensor, nn

from cmtool.core.denoiser import Denoiser, Preconditioning
from cmtool.errors import BadFile
from cmtool.files.checkpoint import load_weights
from cmtool.files.header import Header
from cmtool.files.model_format import Format, LoadedModel
from cmtool.formats.common import (
    KindOption,
    SideOption,
    SigmaMaxOption,
    SigmaMinOption,
    build_described,
    check_agreement,
    check_backbone,
    require,
    unknown_data,
)
from cmtool.formats.diffusers_config import UNetConfig, parse_config
from cmtool.formats.diffusers_files import (
    CONFIG,
    INDEX,
    SCHEDULER,
    UNET,
    class_of,
    digest_folder,
    document,
    folder_of,
    tensors,
    weights_of,
)
from cmtool.formats.diffusers_names import from_diffusers, layer_names
from cmtool.formats.diffusers_schedulers import CONSISTENCY, SCHEDULES, SchedulerSteps, scheduler_beside, steps_of
from cmtool.formats.diffusers_writer import write_diffusers
from cmtool.options.plugin_option import Option
from cmtool.options.types import positive

__all__ = ["diffusers"]

PIPELINE, NETWORK = "ConsistencyModelPipeline", "UNet2DModel"
NUMBERED = ("DDPMPipeline", "DDIMPipeline", "PNDMPipeline")
ASSUMED = "nothing says what the network predicts: it is taken to be as OpenAI's are; of DDPM's say format.schedule"
PUBLISHED = {"sigma_min": 0.002, "sigma_max": 80.0, "sigma_data": 0.5}  # also diffusers' own, where it says nothing
USUAL = {"kind": "consistency", "side": 64}
FREE = {"dropout", "half"}  # options of the network that may be chosen


def is_diffusers(path: Path) -> bool:
    """A folder whose index or configuration names a class, or a file in it; of those not read, the reader says so."""
    folder = folder_of(path)
    return folder.is_dir() and bool(class_of(folder / INDEX) or class_of(folder / CONFIG))


def read_diffusers(
    path: Path,
    backbone: Mapping[str, Any],
    *,
    kind: KindOption = None,
    side: SideOption = None,
    sigma_min: SigmaMinOption = None,
    sigma_max: SigmaMaxOption = None,
    sigma_data: Annotated[
        float | None, Option("standard deviation of the data in the preconditioning", positive())
    ] = None,
    schedule: Annotated[
        str | None, Option("the beta schedule of a network alone that predicts noise", choices=tuple(SCHEDULES))
    ] = None,
) -> LoadedModel[Denoiser]:
    """Folders of diffusers: ConsistencyModelPipeline, DDPM, DDIM and PNDM pipelines, or a UNet2DModel alone.

    Formula: ``D(x, sigma)`` under EDM's preconditioning of a network with ``c_noise = 250 ln sigma``; of numbered steps
    ``D(x, sigma) = x - sigma eps``, or v-prediction, as the scheduler says
    Paper: Song et al. 2023, arXiv 2303.01469; Salimans and Ho 2022, arXiv 2202.00512, of v-prediction.
    Use: for folders of ``save_pretrained`` whose network is ADM's; cmtool also writes them (``convert``). A
    pipeline says all that is needed. Of a network alone ``kind`` and ``side`` must be said; its noise sigmas and
    ``sigma_data`` are 0.002 to 80 and 0.5 unless they are given, and ``schedule`` says that it predicts the noise
    of DDPM's 1000 steps. Of ``backbone`` only ``dropout`` and ``half`` may differ from the folder.

    BadFile for a folder that is damaged or has another network; MissingInput for one that is not whole; UsageError for
    what must be said or contradicts it.
    """
    place, known, steps = open_folder(folder_of(path))
    shown, weights = parse_config(place / CONFIG, document(place / CONFIG)), weights_of(path)
    state, before = tensors(weights)
    if schedule and not known and before is None:
        steps, known = SchedulerSteps(schedule), of_steps(SchedulerSteps(schedule))
    known = {"schedule": None} | header_facts(before) | known | ({"side": shown.side} if shown.side else {})
    given = {"kind": kind, "side": side, "sigma_min": sigma_min, "sigma_max": sigma_max, "sigma_data": sigma_data}
    said = {key: value for key, value in (given | {"schedule": schedule}).items() if value is not None}
    meant: dict[str, Any] = {**PUBLISHED, **known, **said}
    shown = shown.at(meant["side"]) if "side" in meant else shown
    check_agreement(path, "format", said, known)
    check_backbone(path, dict.fromkeys(backbone) | shown.backbone, backbone, FREE)
    require(path, {f"format.{key}": value for key, value in USUAL.items() if key not in meant})
    check_noise_range(path, meant)

    shown = replace(shown, backbone=shown.backbone | dict(backbone))
    shape = (shown.channels, meant["side"], meant["side"])
    net = fill_backbone(weights, state, shown, shape)
    boundary = meant["sigma_min"] if meant["kind"] == "consistency" else 0.0
    openai = Preconditioning(float(meant["sigma_data"]), boundary, "log-1000")
    model = Denoiser(net, steps.preconditioning() if steps else openai)
    if steps:
        what = f"the network predicts {steps.predicts} of {steps.count:,} {steps.schedule} steps"
        remarks = (what if schedule else f"{what}, as its scheduler says",)
    else:
        remarks = (ASSUMED,) if before is None and meant["kind"] == "score" else ()
    return LoadedModel(model, diffusers_header(meant, shown, shape, model, digest_folder(path), before), path, remarks)


def open_folder(path: Path) -> tuple[Path, dict[str, Any], SchedulerSteps | None]:
    """The folder of the network, what its scheduler says, and its numbered steps, if it has such.

    BadFile for classes that are not read.
    """
    if not (path / INDEX).exists():
        check_class(path / CONFIG, NETWORK)
        scheduler = scheduler_beside(path)
        said, steps = read_scheduler(scheduler) if scheduler else ({}, None)
        return path, said, steps
    check_class(path / INDEX, PIPELINE, *NUMBERED)
    check_class(path / UNET / CONFIG, NETWORK)
    if class_of(path / INDEX) == PIPELINE:
        check_class(path / SCHEDULER, CONSISTENCY)
    said, steps = read_scheduler(path / SCHEDULER)
    return path / UNET, said, steps


def read_scheduler(path: Path) -> tuple[dict[str, Any], SchedulerSteps | None]:
    """The kind of model and the noise sigmas that a scheduler's configuration says."""
    said = document(path)
    if said.get("_class_name") != CONSISTENCY:
        return of_steps(steps_of(path)), steps_of(path)
    return {"kind": "consistency", **{key: said.get(key, value) for key, value in PUBLISHED.items()}}, None


def of_steps(steps: SchedulerSteps) -> dict[str, Any]:
    low, high = steps.span()
    facts = {"kind": "score", "sigma_min": low, "sigma_max": high, "schedule": steps.schedule}
    return facts | {"sigma_data": steps.preconditioning().sigma_data}


def header_facts(header: Header | None) -> dict[str, Any]:
    """What the header says of how the network is used, where we wrote it."""
    if header is None:
        return {}
    sigmas = {key: getattr(header, key) for key in ("kind", "sigma_min", "sigma_max")}
    return {**sigmas, "sigma_data": header.preconditioning.get("sigma_data", 0.5)}


def check_class(path: Path, *wanted: str) -> None:
    """BadFile unless a document describes one of these classes."""
    found = document(path).get("_class_name")
    if found not in wanted:
        raise BadFile(f"{path} is of a {str(found)[:60]}, and cmtool reads there only {', '.join(wanted)}")


def check_noise_range(path: Path, meant: Mapping[str, Any]) -> None:
    """BadFile for noise levels that cannot be."""
    numbers = [meant[key] for key in PUBLISHED]
    if any(type(number) not in (int, float) for number in numbers) or not (
        0 < meant["sigma_min"] < meant["sigma_max"] < 1e6 and 0 < meant["sigma_data"] < 1e6
    ):
        raise BadFile(f"{path} has noise levels that cannot be: {', '.join(map(str, numbers))[:60]}")


def fill_backbone(weights: Path, state: Mapping[str, Tensor], shown: UNetConfig, shape: tuple[int, ...]) -> nn.Module:
    """The network with its weights; BadFile when there is none such, or they are not its."""
    if f"down_blocks.0.resnets.{shown.stack.blocks - 1}.norm1.weight" not in state:  # before a billion are made
        raise BadFile(f"{weights} has not the {shown.stack.blocks} blocks in a level that {CONFIG} says")
    net = build_described(weights, shown.backbone, shape, shown.classes)
    load_weights(weights, net, from_diffusers(weights, state, layer_names(shown.stack)))
    return net


def diffusers_header(
    meant: Mapping[str, Any],
    shown: UNetConfig,
    shape: tuple[int, ...],
    model: Denoiser,
    sha256: str,
    before: Header | None,
) -> Header:
    """What the folder says; the rest, such as names of classes and parents, from the header that we wrote into it."""
    facts = {
        "kind": meant["kind"],
        "backbone": shown.backbone,
        "preconditioning": asdict(model.preconditioning),
        "num_classes": shown.classes,
        "sigma_min": float(meant["sigma_min"]),
        "sigma_max": float(meant["sigma_max"]),
        "sha256": sha256,
    }
    if before and before.shape == shape and before.num_classes == shown.classes:
        return replace(before, **facts)
    return Header(**facts, data=unknown_data(shape), method="diffusers")


diffusers = Format(read_diffusers, is_diffusers, digest_folder, write_diffusers)
