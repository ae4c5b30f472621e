"""Folders that diffusers reads: of a consistency model a ConsistencyModelPipeline, of a score model its UNet2DModel.

For score models that are told ``250 ln sigma`` diffusers has no scheduler, so they are written without a pipeline.
"""

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from cmtool.core.denoiser import Denoiser, Preconditioning
from cmtool.errors import Hint, Setting, UsageError
from cmtool.files.atomic import make_folder, write_bytes
from cmtool.files.checkpoint import complete_header, digest
from cmtool.files.header import Header
from cmtool.files.sealed import write_sealed
from cmtool.formats.diffusers_config import config_of
from cmtool.formats.diffusers_files import CONFIG, INDEX, KEY, SCHEDULER, UNET, WEIGHTS
from cmtool.formats.diffusers_names import Stack, layer_names, to_diffusers
from cmtool.text_files import dump_json

__all__ = ["write_diffusers"]

PIPELINE = {
    "_class_name": "ConsistencyModelPipeline",
    "scheduler": ["diffusers", "CMStochasticIterativeScheduler"],
    "unet": ["diffusers", "UNet2DModel"],
}


def write_diffusers(path: Path, model: Denoiser, header: Header, dtype: torch.dtype | None = None) -> Header:
    """Write the folder ``path``, and return the header with the SHA-256 of its file of weights.

    The header itself stands in that file's metadata, so that all of it comes back. ``dtype`` is the precision of the
    weights, by default their own. UsageError for a model that diffusers has no counterpart for; WriteFailed when the
    folder cannot be written.
    """
    for what in without_counterpart(model, header):
        raise UsageError(
            f"{path} cannot be written: {what} has no counterpart in diffusers",
            Hint("write ours: {}", Setting("to", "cmtool")),
        )
    plan: Any = model.net.plan  # type: ignore[union-attr]
    backbone = {**asdict(plan), "head_width": None if plan.heads == 1 else min(widths(plan))}
    names = layer_names(Stack(len(plan.channel_mult), plan.num_blocks, plan.attention, plan.updown))
    state = {name: value.to(dtype or value.dtype) for name, value in model.net.state_dict().items()}

    pipeline = header.kind == "consistency"
    unet = make_folder(path / UNET if pipeline else path)
    header = complete_header(header, model)
    said = {key: value for key, value in header.document().items() if key != "sha256"}
    write_sealed(unet / WEIGHTS[0], to_diffusers(state, names), KEY, said)
    write_json(unet / CONFIG, config_of(backbone, plan.channels, plan.classes, header.shape[-1]))
    if pipeline:
        write_json(path / SCHEDULER, scheduler(model.preconditioning, header))
        write_json(path / INDEX, PIPELINE)
    return replace(header, sha256=digest(unet / WEIGHTS[0]))


def without_counterpart(model: Denoiser, header: Header) -> Iterator[str]:
    """What the model has that diffusers has not, the most general first."""
    if header.backbone["name"] != "adm":
        yield f"the network '{header.backbone['name']}'"
        return
    boundary = header.sigma_min if header.kind == "consistency" else 0.0
    usual = asdict(Preconditioning(model.preconditioning.sigma_data, boundary, "log-1000"))
    for key, value in asdict(model.preconditioning).items():
        if value != usual[key]:
            yield f"preconditioning.{key}={value} of a {header.kind} model (there it is {usual[key]})"
    plan: Any = model.net.plan  # type: ignore[union-attr]
    unlike = {
        "qkv": plan.qkv == "legacy",
        "learn_variance": plan.learn_variance,
        "channel_mult": plan.channel_mult[0] != 1,
        "heads": len(widths(plan)) > 1 and plan.heads != 1,
        "heads_upsample": plan.heads_upsample not in (None, plan.heads),
        "resample_conv": not (plan.resample_conv or plan.updown),
    }
    for key in (key for key, without in unlike.items() if without):
        yield f"backbone.{key}={getattr(plan, key)}"
    if header.backbone.get("half"):
        yield "backbone.half=true"


def widths(plan: Any) -> set[int]:
    """How wide the heads are, over all levels that have attention; the middle always has it."""
    looking = {*plan.attention, len(plan.channel_mult) - 1}
    return {plan.at(level) // plan.heads if plan.heads else plan.head_width for level in looking}


def scheduler(preconditioning: Preconditioning, header: Header) -> dict[str, Any]:
    """40 levels and the exponent 7 are diffusers' own: which levels to stop at is said when it samples."""
    return {
        "_class_name": "CMStochasticIterativeScheduler",
        "num_train_timesteps": 40,
        "sigma_min": header.sigma_min,
        "sigma_max": header.sigma_max,
        "sigma_data": preconditioning.sigma_data,
        "s_noise": 1.0,
        "rho": 7.0,
        "clip_denoised": True,
    }


def write_json(path: Path, document: dict[str, Any]) -> None:
    write_bytes(path, dump_json(document, indent=2).encode() + b"\n")
