"""Files of k-diffusion: the average alone as safetensors, with the configuration beside it, or a training's ``.pth``.

The configuration says everything: the network, what it was told besides the level, and the levels themselves. Networks
predict under EDM's scalings. Source: k-diffusion (K. Crowson, 2022); Karras et al. 2022, arXiv 2206.00364, table 1.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from cmtool.core.denoiser import Denoiser, Preconditioning
from cmtool.errors import CmtoolError, UsageError
from cmtool.files.checkpoint import digest, load_weights
from cmtool.files.container import metadata
from cmtool.files.header import Header
from cmtool.files.model_format import Format, LoadedModel
from cmtool.files.safe_pickle.torch_archive import find_pickle, mentions, read, state_dict
from cmtool.files.sealed import read_tensors
from cmtool.formats.edm import contradicts, empty
from cmtool.formats.kdiffusion_config import KDiffusionConfig, read_architecture
from cmtool.formats.wrappers import strip_prefixes

__all__ = ["kdiffusion"]

WRAPPED = "inner_model."  # before each name of a network that was told how its images were changed
USUAL = {"format.sigma_min": 0.01, "format.sigma_max": 80}


def recognize(path: Path) -> bool:
    """A configuration in the metadata of a safetensors file; in a ``.pth``, the average and its schedule."""
    if not path.is_file():
        return False
    return configuration(path) is not None or mentions(find_pickle(path), "model", "model_ema", "ema_sched")


def configuration(path: Path) -> dict[str, Any] | None:
    """That of a safetensors file; None where there is none that says what its model is."""
    try:
        found = json.loads(metadata(path).get("config", ""))
    except (CmtoolError, ValueError, TypeError, RecursionError):
        return None
    model = found.get("model") if isinstance(found, dict) else None
    return found if isinstance(model, dict) and "type" in model else None


def read_kdiffusion(
    path: Path,
    *,
    backbone: Mapping[str, Any] | None = None,
    ema: bool = True,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
) -> LoadedModel[Denoiser]:
    """A network of k-diffusion as a denoiser, with a header; the average of a training, unless ``ema`` is false.

    ``sigma_min`` and ``sigma_max`` are the levels to sample between, where they should be others than configured.
    ``backbone`` may only repeat what the file says, except for the dropout. BadFile for a damaged file, or one of a
    network that is not ours; UsageError for what must be said, or what contradicts the file.
    """
    config, tensors = open_file(path, ema)
    shown = read_architecture(path, config)
    contradicts(path, shown.backbone, backbone or {})
    spec = shown.backbone | dict(backbone or {})
    low, high = between(path, sigma_min or shown.sigma_min, sigma_max or shown.sigma_max)
    net = empty(path, spec, shown.shape, 0)
    load_weights(path, net, {name.removeprefix(WRAPPED): tensor for name, tensor in strip_prefixes(tensors).items()})
    model = Denoiser(net, Preconditioning(shown.sigma_data))
    about = header(path, spec, shown, model, low, high)
    if ema and configuration(path) is None:  # a training's file, which holds both
        about = replace(about, average={"track": "model_ema"})
    return LoadedModel(model, about, path)


def open_file(path: Path, ema: bool) -> tuple[Any, dict[str, Tensor]]:
    """The configuration and the weights."""
    config = configuration(path)
    if config is None:
        found = read(path)
        found = found if isinstance(found, dict) else {}
        return found.get("config"), state_dict(path, found.get("model_ema" if ema else "model"))
    if not ema:
        raise UsageError(f"{path} holds an average and nothing else", "leave format.ema out")
    return config, state_dict(path, read_tensors(path))


def between(path: Path, low: float | None, high: float | None) -> tuple[float, float]:
    """The lowest and the highest level; UsageError where they are not said, or are none."""
    missing = [key for key, value in zip(USUAL, (low, high), strict=True) if value is None]
    if missing:
        flags = " ".join(f"--set {key}={USUAL[key]}" for key in missing)
        raise UsageError(f"{path} does not say {', '.join(missing)}", f"give it: such as {flags}")
    assert low and high
    if not 0 < low < high:
        raise UsageError(f"there are no noise levels from {low} to {high}", "set format.sigma_max higher")
    return low, high


def header(
    path: Path, spec: dict[str, Any], shown: KDiffusionConfig, model: Denoiser, low: float, high: float
) -> Header:
    """What a converted file will say of it."""
    return Header(
        kind="score",
        backbone=spec,
        preconditioning=asdict(model.preconditioning),
        data={"name": "unknown", "shape": list(shown.shape), "classes": [], "notice": ""},
        num_classes=0,
        sigma_min=low,
        sigma_max=high,
        method="kdiffusion",
        sha256=digest(path),
    )


kdiffusion = Format(read_kdiffusion, recognize)
