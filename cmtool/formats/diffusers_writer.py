"""Folders that diffusers reads: of a consistency model a ConsistencyModelPipeline, of a score model its UNet2DModel.

For score models with ``c_noise = 250 ln sigma`` diffusers has no scheduler, so they are written without a pipeline.
"""

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from cmtool.backbones.adm import ADM, ADMConfig
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
    assert isinstance(model.net, ADM)
    config = model.net.config
    backbone = {**asdict(config), "num_head_channels": None if config.num_heads == 1 else min(widths(config))}
    levels = range(len(config.channel_mult))
    attention = tuple(level for level in levels if config.has_attention(level))
    names = layer_names(Stack(len(levels), config.num_blocks, attention, config.resblock_updown))
    state = {name: value.to(dtype or value.dtype) for name, value in model.net.state_dict().items()}

    pipeline = header.kind == "consistency"
    unet = make_folder(path / UNET if pipeline else path)
    header = complete_header(header, model)
    said = {key: value for key, value in header.document().items() if key != "sha256"}
    write_sealed(unet / WEIGHTS[0], to_diffusers(state, names), KEY, said)
    write_json(unet / CONFIG, config_of(backbone, config.channels, config.classes, header.shape[-1]))
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
    default = asdict(Preconditioning(model.preconditioning.sigma_data, boundary, "log-1000"))
    for key, value in asdict(model.preconditioning).items():
        if value != default[key]:
            yield f"preconditioning.{key}={value} of a {header.kind} model (there it is {default[key]})"
    assert isinstance(model.net, ADM)
    config = model.net.config
    unlike = {
        "qkv": config.qkv == "legacy",
        "learn_variance": config.learn_variance,
        "channel_mult": config.channel_mult[0] != 1,
        "num_heads": len(widths(config)) > 1 and config.num_heads != 1,
        "num_heads_upsample": config.num_heads_upsample not in (None, config.num_heads),
        "conv_resample": not (config.conv_resample or config.resblock_updown),
    }
    options = asdict(config)
    for key in (key for key, without in unlike.items() if without):
        yield f"backbone.{key}={options[key]}"
    if header.backbone.get("half"):
        yield "backbone.half=true"


def widths(config: ADMConfig) -> set[int]:
    """How wide the heads are, over all levels that have attention; the middle always has it."""
    levels = range(len(config.channel_mult))
    attended = {level for level in levels if config.has_attention(level) or level == levels[-1]}
    heads = config.num_heads
    return {config.channels_at(level) // heads if heads else config.num_head_channels for level in attended}


def scheduler(preconditioning: Preconditioning, header: Header) -> dict[str, Any]:
    """40 sigmas and rho 7 are diffusers' own: which of them to sample at is said when it samples."""
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
