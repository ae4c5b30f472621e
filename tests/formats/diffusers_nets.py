"""Tiny models such as are written for diffusers, and folders of them."""

import json
from pathlib import Path

from adm_nets import SPEC, weights

from cmtool.core.denoiser import Denoiser, Preconditioning
from cmtool.files.header import Header
from cmtool.files.model_format import LoadedModel
from cmtool.options import registry

__all__ = ["change", "tiny"]


def tiny(kind="consistency", classes=0, preconditioning=None, **options):
    """A random model of 16x16 pixels with the network ``adm``, and its header."""
    spec = {"name": "adm", **{k: list(v) if isinstance(v, tuple) else v for k, v in {**SPEC, **options}.items()}}
    net = registry.build("backbones", spec, (3, 16, 16), classes)
    net.load_state_dict(weights(16, classes, **options))
    boundary = 0.002 if kind == "consistency" else 0.0
    model = Denoiser(net, preconditioning or Preconditioning(0.5, boundary, "log-1000")).eval()
    names = [f"class {i}" for i in range(classes)]
    header = Header(
        kind=kind,
        backbone=spec,
        preconditioning={},
        data={"name": "folder", "shape": [3, 16, 16], "classes": names, "notice": "by nobody"},
        num_classes=classes,
        sigma_min=0.002,
        sigma_max=80.0,
        sigmas=[0.6],
        method="distill cd",
        images=1000,
        parents=[{"path": "teacher.pt", "sha256": "0" * 64}],
        licence="MIT",
    )
    return LoadedModel(model, header, Path("tiny"))


def change(path, **values):
    """Other values in a JSON document."""
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
