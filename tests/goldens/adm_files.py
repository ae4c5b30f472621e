"""Recorded ADM networks as files such as were published, read through ``cmtool.load``."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from harness import Case

import cmtool
from cmtool.core.denoiser import Denoiser

__all__ = ["adm_model"]


def said(flags: dict[str, Any], guided: bool) -> dict[str, Any]:
    """The reference's flags that its files do not hold, as our options."""
    narrow = flags["num_head_channels"] > 0
    backbone = {"head_width": flags["num_head_channels"]} if narrow else {"heads": flags["num_heads"]}
    if guided:
        backbone["qkv"] = "new" if flags.get("use_new_attention_order") else "legacy"
    format = {"side": flags["image_size"], **({"schedule": "linear"} if guided else {"kind": "consistency"})}
    return {"format": format, "backbone": {**backbone, "half": flags.get("use_fp16", False)}}


def adm_model(case: Case, weights: str, sigma_min: float = 0.0, guided: bool = False) -> Denoiser:
    """The recorded network behind OpenAI's scalings; ``sigma_min`` 0.002 is their ``distillation=True``."""
    about = said(case.spec["unet" if "unet" in case.spec else "create_model"], guided)
    if (case.folder / "model.pt").is_file():
        model = cmtool.load(case.folder / "model.pt", **about)
    else:
        with TemporaryDirectory() as place:
            torch.save(case.weights[weights], Path(place) / "net.pt")
            model = cmtool.load(Path(place) / "net.pt", **about)
    if not guided:
        model.preconditioning = replace(model.preconditioning, sigma_min=sigma_min)
    return model
