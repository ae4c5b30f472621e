"""Networks that are trained or drawn in a blink."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from cmtool.core.denoiser import Denoiser, Preconditioning
from cmtool.files.checkpoint import save
from cmtool.files.header import Header
from cmtool.options import registry

__all__ = ["NETWORK", "SHORT", "TINY", "listing", "pixels", "random_model"]

NETWORK = [
    "--set",
    "backbone.model_channels=16",
    "--set",
    "backbone.channel_mult=[1]",
    "--set",
    "backbone.num_blocks=1",
]
SHORT = ["--images", "128", "--batch", "32", "--warmup", "0", "--lr", "3e-3", "--snapshots", "1"]
TINY = [*NETWORK, *SHORT]


def random_model(path: Path, shape=(3, 16, 16), classes=0, kind="consistency") -> Path:
    """A checkpoint whose weights are random, also those that a network starts with at 0."""
    spec = {"name": "unet", "model_channels": 16, "channel_mult": [1], "num_blocks": 1}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = registry.build("backbones", spec, shape, classes)
        for parameter in net.parameters():
            torch.nn.init.normal_(parameter, std=0.2) if not parameter.any() else None
    names = [f"class {i}" for i in range(classes)]
    data = {"name": "none", "shape": list(shape), "classes": names, "notice": ""}
    boundary = 0.002 if kind == "consistency" else 0.0
    save(path, Denoiser(net, Preconditioning(0.5, boundary)), Header(kind, spec, {}, data, classes, 0.002, 80.0))
    return path


def pixels(path) -> np.ndarray:
    """[H, W] or [H, W, 3] of a picture."""
    return np.asarray(Image.open(path))


def listing(folder) -> dict[str, bytes]:
    """Every file below a folder with its contents."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}
