"""Folders of diffusers: a pipeline of a consistency model or of numbered steps (DDPM), or a UNet2DModel alone.

A pipeline says all that is needed, and so does the scheduler beside a network in it. Of a network alone it is not known
what it predicts: whether it is a consistency model must be said, and unless ``schedule`` says that it was told numbers
of steps, it is taken to be used under EDM's scalings and told ``250 ln sigma``, as those of OpenAI's consistency models
are (Song et al. 2023, arXiv 2303.01469).
"""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from cmtool.core.denoiser import Denoiser, Preconditioning
from cmtool.errors import BadFile, CmtoolError, UsageError, unknown_name
from cmtool.files.checkpoint import load_weights, without_memory
from cmtool.files.header import KINDS, Header
from cmtool.files.model_format import Format, LoadedModel
from cmtool.formats.diffusers_config import UNetConfig, parse_config
from cmtool.formats.diffusers_files import (
    CONFIG,
    INDEX,
    SCHEDULER,
    UNET,
    class_of,
    document,
    folder_of,
    seal,
    tensors,
    weights_of,
)
from cmtool.formats.diffusers_names import inwards, table
from cmtool.formats.diffusers_schedulers import CONSISTENCY, SCHEDULES, SchedulerSteps, beside, steps_of
from cmtool.formats.diffusers_writer import write
from cmtool.options import registry

__all__ = ["diffusers"]

PIPELINE, NETWORK = "ConsistencyModelPipeline", "UNet2DModel"
NUMBERED = ("DDPMPipeline", "DDIMPipeline", "PNDMPipeline")
ASSUMED = "nothing says what the network predicts: it is taken to be as OpenAI's are; of DDPM's say format.schedule"
PUBLISHED = {"sigma_min": 0.002, "sigma_max": 80.0, "sigma_data": 0.5}  # also diffusers' own, where it says nothing
FREE = {"dropout", "half"}  # options of the network that may be chosen


def recognize(path: Path) -> bool:
    """A folder whose index or configuration names a class, or a file in it; of those not read, the reader says so."""
    folder = folder_of(path)
    return folder.is_dir() and bool(class_of(folder / INDEX) or class_of(folder / CONFIG))


def read_diffusers(
    path: Path,
    *,
    backbone: Mapping[str, Any] | None = None,
    kind: str | None = None,
    side: int | None = None,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    sigma_data: float | None = None,
    schedule: str | None = None,
) -> LoadedModel[Denoiser]:
    """A pipeline or a network of diffusers as a denoiser, with a header.

    ``kind`` is "score" or "consistency" and ``side`` that of the images, where the folder does not say; so are the
    range of noise levels and ``sigma_data``, by default 0.002, 80 and 0.5; ``schedule``, "linear" or "cosine", says
    that a network alone predicts the noise of DDPM's 1000 steps. ``backbone`` may only repeat what the folder says,
    except for ``dropout`` and ``half``. BadFile for a folder that is damaged, or has a network that is not OpenAI's;
    MissingInput for one that is not whole; UsageError for what must be said or contradicts it.
    """
    for what, word, words in (("kind of model", kind, KINDS), ("schedule", schedule, SCHEDULES)):
        if word is not None and word not in words:
            raise unknown_name(what, word, words)
    place, known, steps = open_folder(folder_of(path))
    shown, weights = parse_config(place / CONFIG, document(place / CONFIG)), weights_of(path)
    state, before = tensors(weights)
    if schedule and not known and before is None:
        steps, known = SchedulerSteps(schedule), of_steps(SchedulerSteps(schedule))
    known = {"schedule": None} | noted(before) | known | ({"side": shown.side} if shown.side else {})
    given = {"kind": kind, "side": side, "sigma_min": sigma_min, "sigma_max": sigma_max, "sigma_data": sigma_data}
    said = {key: value for key, value in (given | {"schedule": schedule}).items() if value is not None}
    meant: dict[str, Any] = {**PUBLISHED, **known, **said}
    chosen = dict(backbone or {})
    contradicts(path, "format", said, known)
    contradicts(path, "backbone", chosen, dict.fromkeys(chosen) | shown.backbone | {k: chosen.get(k) for k in FREE})
    require(path, meant)

    shown = replace(shown, backbone=shown.backbone | chosen)
    shape = (shown.channels, meant["side"], meant["side"])
    net = fill_backbone(weights, state, shown, shape)
    boundary = meant["sigma_min"] if meant["kind"] == "consistency" else 0.0
    usual = Preconditioning(float(meant["sigma_data"]), boundary, "log-1000")
    model = Denoiser(net, steps.preconditioning() if steps else usual)
    if steps:
        what = f"the network predicts {steps.predicts} of {steps.count:,} {steps.schedule} steps"
        remarks = (what if schedule else f"{what}, as its scheduler says",)
    else:
        remarks = (ASSUMED,) if before is None and meant["kind"] == "score" else ()
    return LoadedModel(model, header(meant, shown, shape, model, seal(path), before), path, remarks)


def open_folder(path: Path) -> tuple[Path, dict[str, Any], SchedulerSteps | None]:
    """The folder of the network, what its scheduler says, and its numbered steps, if it has such.

    BadFile for classes that are not read.
    """
    if not (path / INDEX).exists():
        check(path / CONFIG, NETWORK)
        scheduler = beside(path)
        said, steps = scheduled(scheduler) if scheduler else ({}, None)
        return path, said, steps
    check(path / INDEX, PIPELINE, *NUMBERED)
    check(path / UNET / CONFIG, NETWORK)
    if class_of(path / INDEX) == PIPELINE:
        check(path / SCHEDULER, CONSISTENCY)
    said, steps = scheduled(path / SCHEDULER)
    return path / UNET, said, steps


def scheduled(path: Path) -> tuple[dict[str, Any], SchedulerSteps | None]:
    """The kind of model and the noise levels that a scheduler's configuration says."""
    said = document(path)
    if said.get("_class_name") != CONSISTENCY:
        return of_steps(steps_of(path)), steps_of(path)
    return {"kind": "consistency", **{key: said.get(key, value) for key, value in PUBLISHED.items()}}, None


def of_steps(steps: SchedulerSteps) -> dict[str, Any]:
    low, high = steps.span()
    told = {"kind": "score", "sigma_min": low, "sigma_max": high, "schedule": steps.schedule}
    return told | {"sigma_data": steps.preconditioning().sigma_data}


def noted(header: Header | None) -> dict[str, Any]:
    """What the header says of how the network is used, where we wrote it."""
    if header is None:
        return {}
    levels = {key: getattr(header, key) for key in ("kind", "sigma_min", "sigma_max")}
    return {**levels, "sigma_data": header.preconditioning.get("sigma_data", 0.5)}


def check(path: Path, *wanted: str) -> None:
    found = document(path).get("_class_name")
    if found not in wanted:
        raise BadFile(f"{path} is of a {str(found)[:60]}, and cmtool reads there only {', '.join(wanted)}")


def contradicts(path: Path, what: str, said: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    for key, value in said.items():
        if key in known and (list(value) if isinstance(value, tuple) else value) != known[key]:
            raise UsageError(f"{what}.{key}={value} contradicts {path}, whose is {known[key]}", "leave it out")


def require(path: Path, meant: Mapping[str, Any]) -> None:
    """UsageError that names what is missing, with usual values; BadFile for noise levels that cannot be."""
    usual = {"kind": "consistency", "side": "64"}
    missing = [key for key in usual if key not in meant]
    if missing:
        keys, flags = ", ".join(f"format.{key}" for key in missing), [f"--set format.{k}={usual[k]}" for k in missing]
        raise UsageError(
            f"{path} does not say {keys}", f"write it into {path}.yaml, or give it: such as {' '.join(flags)}"
        )
    numbers = [meant[key] for key in PUBLISHED]
    if any(type(number) not in (int, float) for number in numbers) or not (
        0 < meant["sigma_min"] < meant["sigma_max"] < 1e6 and 0 < meant["sigma_data"] < 1e6
    ):
        raise BadFile(f"{path} has noise levels that cannot be: {', '.join(map(str, numbers))[:60]}")


def fill_backbone(weights: Path, state: Mapping[str, Tensor], shown: UNetConfig, shape: tuple[int, ...]) -> nn.Module:
    """The network with its weights; BadFile when there is none such, or they are not its."""
    if f"down_blocks.0.resnets.{shown.stack.blocks - 1}.norm1.weight" not in state:  # before a billion are made
        raise BadFile(f"{weights} has not the {shown.stack.blocks} blocks in a level that {CONFIG} says")
    try:
        with without_memory():
            net = registry.build("backbones", shown.backbone, shape, shown.classes)
    except CmtoolError as error:
        raise BadFile(f"{weights} cannot be used: {error.message}", error.hint) from error
    except (TypeError, ValueError, RuntimeError) as error:
        raise BadFile(f"{weights} has beside it a {CONFIG} of a network that cannot be") from error
    load_weights(weights, net, inwards(weights, state, table(shown.stack)))
    return net


def header(
    meant: Mapping[str, Any],
    shown: UNetConfig,
    shape: tuple[int, ...],
    model: Denoiser,
    seal: str,
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
        "sha256": seal,
    }
    if before and before.shape == shape and before.num_classes == shown.classes:
        return replace(before, **facts)
    data = {"name": "unknown", "shape": list(shape), "classes": [], "notice": ""}
    return Header(**facts, data=data, method="diffusers")


diffusers = Format(read_diffusers, recognize, seal, write)
