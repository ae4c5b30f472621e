"""Files of k-diffusion: the average alone as safetensors, with the configuration beside it, or a training's ``.pth``.

The configuration says everything: the network, its conditioning besides sigma, and the range of sigma. Networks
predict under EDM's scalings. Source: k-diffusion (K. Crowson, 2022); Karras et al. 2022, arXiv 2206.00364, table 1.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from cmtool.core.denoiser import Denoiser, Preconditioning
from cmtool.errors import CmtoolError, Hint, Setting, UsageError
from cmtool.files.checkpoint import digest, load_weights
from cmtool.files.container import metadata
from cmtool.files.header import Header
from cmtool.files.model_format import Format, LoadedModel
from cmtool.files.safe_pickle.torch_files import find_pickle, mentions, read_torch_file, state_dict
from cmtool.files.sealed import read_tensors
from cmtool.formats.common import (
    EmaOption,
    SigmaMaxOption,
    SigmaMinOption,
    build_described,
    check_backbone,
    check_sigmas,
    require,
    unknown_data,
)
from cmtool.formats.kdiffusion_config import KDiffusionConfig, read_image_v1
from cmtool.formats.wrappers import strip_prefixes

__all__ = ["kdiffusion"]

WRAPPED = "inner_model."  # before each name of a network with augment labels
USUAL = {"format.sigma_min": 0.01, "format.sigma_max": 80}


def is_kdiffusion(path: Path) -> bool:
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
    backbone: Mapping[str, Any],
    *,
    ema: EmaOption = True,
    sigma_min: SigmaMinOption = None,
    sigma_max: SigmaMaxOption = None,
) -> LoadedModel[Denoiser]:
    """Networks of k-diffusion: safetensors with the configuration beside the weights, or the state of a training.

    Formula: ``D(x, sigma)`` under EDM's preconditioning, with the ``sigma_data`` of the configuration
    Paper: Karras et al. 2022, arXiv 2206.00364, table 1; k-diffusion, K. Crowson, 2022.
    Use: for ``.safetensors`` and ``.pth`` of k-diffusion's ``train.py``. The configuration says everything;
    ``sigma_min`` and ``sigma_max`` replace the noise levels in it, and of ``backbone`` only the dropout may differ
    from the file.

    BadFile for a damaged file or an architecture that cmtool does not have; UsageError for what must be said, or what
    contradicts the file.
    """
    config, tensors = open_file(path, ema)
    shown = read_image_v1(path, config)
    check_backbone(path, shown.backbone, backbone)
    spec = shown.backbone | dict(backbone)
    low, high = sigma_range(path, sigma_min or shown.sigma_min, sigma_max or shown.sigma_max)
    net = build_described(path, spec, shown.shape, 0)
    load_weights(path, net, {name.removeprefix(WRAPPED): tensor for name, tensor in strip_prefixes(tensors).items()})
    model = Denoiser(net, Preconditioning(shown.sigma_data))
    about = kdiffusion_header(path, spec, shown, model, low, high)
    if ema and configuration(path) is None:  # a training's file, which holds both
        about = replace(about, average={"ema": "model_ema"})
    return LoadedModel(model, about, path)


def open_file(path: Path, ema: bool) -> tuple[Any, dict[str, Tensor]]:
    """The configuration and the weights."""
    config = configuration(path)
    if config is None:
        found = read_torch_file(path)
        found = found if isinstance(found, dict) else {}
        return found.get("config"), state_dict(path, found.get("model_ema" if ema else "model"))
    if not ema:
        raise UsageError(f"{path} holds an average and nothing else", Hint("leave {} out", Setting("format.ema")))
    return config, state_dict(path, read_tensors(path))


def sigma_range(path: Path, low: float | None, high: float | None) -> tuple[float, float]:
    """The lowest and the highest noise level; UsageError where they are not said, or are none."""
    require(path, {key: USUAL[key] for key, value in zip(USUAL, (low, high), strict=True) if value is None})
    assert low and high
    check_sigmas(low, high)
    return low, high


def kdiffusion_header(
    path: Path, spec: dict[str, Any], shown: KDiffusionConfig, model: Denoiser, low: float, high: float
) -> Header:
    """What a converted file will say of it."""
    return Header(
        kind="score",
        backbone=spec,
        preconditioning=asdict(model.preconditioning),
        data=unknown_data(shown.shape),
        num_classes=0,
        sigma_min=low,
        sigma_max=high,
        method="kdiffusion",
        sha256=digest(path),
    )


kdiffusion = Format(read_kdiffusion, is_kdiffusion)
