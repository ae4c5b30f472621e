"""Recorded ADM networks as files such as were published, read through ``cmtool.load``."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from harness import Case, scalings

import cmtool
from cmtool.core.denoiser import Denoiser

__all__ = ["adm_model", "flags_of", "said"]

# Of both repositories' ``create_model``, where a case does not say.
DEFAULTS = {
    "num_heads": 1,
    "num_head_channels": -1,
    "num_heads_upsample": -1,
    "use_fp16": False,
    "use_new_attention_order": False,
    "dropout": 0.0,
}


def flags_of(case: Case) -> dict[str, Any]:
    """The arguments of the network."""
    return {**DEFAULTS, **case.spec["unet" if "unet" in case.spec else "create_model"]}


def said(flags: dict[str, Any], guided: bool) -> dict[str, Any]:
    """The reference's flags that its files do not hold, as our options; the number of a head's channels comes first."""
    if flags["num_head_channels"] != -1:
        backbone: dict[str, Any] = {"num_head_channels": flags["num_head_channels"]}
    else:
        up = flags["num_heads_upsample"]
        backbone = {"num_heads": flags["num_heads"], "num_heads_upsample": flags["num_heads"] if up == -1 else up}
    if guided:
        backbone["qkv"] = "new" if flags["use_new_attention_order"] else "legacy"
    if flags.get("conv_resample") is False and not flags.get("resblock_updown"):
        backbone["conv_resample"] = False
    format = {"side": flags["image_size"], **({"schedule": "linear"} if guided else {"kind": "consistency"})}
    return {"format": format, "backbone": {**backbone, "half": flags["use_fp16"], "dropout": flags["dropout"]}}


def adm_model(case: Case, weights: str, sigma_min: float = 0.0, guided: bool = False) -> Denoiser:
    """The recorded network behind OpenAI's scalings; a positive ``sigma_min`` is their ``distillation=True``."""
    about = said(flags_of(case), guided)
    if (case.folder / "model.pt").is_file():
        model = cmtool.load(case.folder / "model.pt", **about).model
    else:
        with TemporaryDirectory() as place:
            torch.save(case.weights[weights], Path(place) / "net.pt")
            model = cmtool.load(Path(place) / "net.pt", **about).model
    if not guided:
        data = scalings(case)["sigma_data"]
        model.preconditioning = replace(model.preconditioning, sigma_data=data, sigma_min=sigma_min)
    return model
