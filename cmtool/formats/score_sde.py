"""``.pth`` checkpoints of score_sde: the state of a training, whose average has no names.

The network is under "model", each name behind "module."; "ema" holds a list of the same tensors, averaged, in the order
of the parameters and without those that are not learnt. Images are in [0, 1] for VE, in [-1, 1] for the others, and all
are [-1, 1] here: levels of VE become twice as large. Source: Song et al. 2021, arXiv 2011.13456, appendix C.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cmtool import registry
from cmtool.core.denoiser import Denoiser, Preconditioning
from cmtool.core.process import VP, SubVP
from cmtool.core.rungs import ddpm
from cmtool.errors import BadFile, UsageError, unknown
from cmtool.files.checkpoint import digest, fill, without_memory
from cmtool.files.header import Header
from cmtool.files.opening import detected
from cmtool.formats.archive import mentions, pickled, read, state_dict
from cmtool.formats.score_sde_shapes import LIST, Shown, read_off

__all__ = ["score_sde"]

PREFIX = "module."
PROCESSES = {"ve": "ve-1", "vp": "vp-999", "subvp": "subvp-999", "ddpm": "ddpm-1000"}
START = 1e-3  # the time at which score_sde stops sampling VP and sub-VP

# The side of the images of published networks, by width, mults and levels with attention.
SIDES = {
    (128, (1, 2, 2, 2), (1,)): 32,
    (128, (1, 1, 2, 2, 2, 2, 2), (4,)): 256,
    (128, (1, 1, 2, 2, 4, 4), (4,)): 256,
    (16, (1, 2, 4, 8, 16, 32, 32, 32), (6,)): 1024,
}


def recognised(path: Path) -> bool:
    """The pickle of a training has a nameless average and the names of score_sde's weights."""
    return path.is_file() and mentions(pickled(path), "model", "shadow_params", f"{PREFIX}{LIST}1.weight")


@detected(recognised)
def score_sde(
    path: Path,
    *,
    backbone: Mapping[str, Any] | None = None,
    process: str | None = None,
    side: int | None = None,
    centered: bool | None = None,
    ema: bool = True,
) -> Denoiser:
    """A network of score_sde as a denoiser, with a header; its average unless ``ema`` is false.

    ``process`` is "vp", "subvp" or "ddpm" (VP of 1000 steps); one with Fourier features is of "ve". ``side`` is that of
    the images, and ``centered`` says that they were in [-1, 1]; ``backbone`` may hold what the tensors do not show, the
    ``taps`` of the filter and ``rescale``. BadFile for a damaged file; UsageError that says what must be given.
    """
    if process is not None and process not in PROCESSES:
        raise unknown("process", process, PROCESSES)
    tensors, levels = weights(path, ema)
    shown = read_off(path, tensors)
    spec = {**shown.backbone, **shown.guessed, **agreed(path, shown, dict(backbone or {}))}
    process = process or ("ve" if shown.fourier else None)
    side = side or SIDES.get(shown.layers)
    require(path, process, side)
    assert process and side
    centered = process != "ve" if centered is None else centered
    check(path, shown, process, centered)

    shape = (shown.channels, side, side)
    with without_memory():
        net = registry.build("backbones", spec, shape, 0)
    fill(path, net, tensors)
    model = Denoiser(net, preconditioning(process, centered))
    sigma_min, sigma_max = span(path, process, levels, 1.0 if centered else 2.0)
    model.header = Header(
        kind="score",
        backbone=spec,
        preconditioning=asdict(model.preconditioning),
        data={"name": "unknown", "shape": list(shape), "classes": [], "notice": ""},
        conditional=0,
        sigma_min=sigma_min,
        sigma_max=sigma_max,
        method="score_sde",
        sha256=digest(path),
    )
    return model


def weights(path: Path, ema: bool) -> tuple[dict[str, Tensor], Tensor | None]:
    """The tensors by their names in the network, and the ladder of levels; BadFile where the average does not fit."""
    found = read(path)
    model = found.get("model") if isinstance(found, dict) else None
    named = state_dict(path, model)
    named = {name.removeprefix(PREFIX): tensor for name, tensor in named.items()}
    levels = named.pop("sigmas", None)
    if not all(name.startswith(LIST) for name in named):
        raise BadFile(f"{path} holds tensors that no network of score_sde has")
    if ema:
        named |= averaged(path, found.get("ema"), [name for name in named if name != f"{LIST}0.W"], named)
    return named, levels


def averaged(path: Path, ema: Any, names: list[str], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The nameless average under the names of the learnt tensors, in whose order it stands."""
    tensors = ema.get("shadow_params") if isinstance(ema, dict) else None
    if not isinstance(tensors, list) or len(tensors) != len(names):
        raise BadFile(f"{path} has no average that fits its network", "take the network itself: --set format.ema=false")
    found = state_dict(path, dict(zip(names, tensors, strict=True)))
    for name, tensor in found.items():
        if tensor.shape != like[name].shape:
            raise BadFile(f"{path} has an average of another network: '{name}' is {list(tensor.shape)}")
    return found


def agreed(path: Path, shown: Shown, given: dict[str, Any]) -> dict[str, Any]:
    """``given``; UsageError for an option that the tensors contradict."""
    factory = registry.get("backbones", shown.backbone["name"])
    for key, value in given.items():
        settled = shown.backbone.get(key)
        settled = tuple(settled) if isinstance(settled, list) else settled
        if key in shown.backbone and registry.typed(factory, f"backbone.{key}", key, value) != settled:
            raise UsageError(
                f"backbone.{key}={value} contradicts {path}, whose is {shown.backbone[key]}", "leave it out"
            )
    return given


def require(path: Path, process: str | None, side: int | None) -> None:
    """UsageError that names everything the file leaves open, with values that would be usual."""
    missing = [said for said, value in {"format.process=vp": process, "format.side=32": side}.items() if value is None]
    if missing:
        keys = ", ".join(said.partition("=")[0] for said in missing)
        flags = " ".join(f"--set {said}" for said in missing)
        raise UsageError(
            f"{path} does not say {keys}", f"write what is true of it into {path}.yaml, or give it: such as {flags}"
        )


def check(path: Path, shown: Shown, process: str, centered: bool) -> None:
    """UsageError for what no preconditioning of ours stands for."""
    if process == "ve" and not shown.fourier:
        raise UsageError(
            f"{path} was told the number of a step of VE, which cmtool does not read",
            "it reads those of VE that have Fourier features",
        )
    if process != "ve" and (shown.fourier or not centered):
        why = "it has Fourier features" if shown.fourier else "images in [0, 1] belong to ve"
        raise UsageError(f"format.process={process} does not fit {path}: {why}", "leave format.process out")


def preconditioning(process: str, centered: bool) -> Preconditioning:
    """The network of VE is told ln sigma of its own images; that of [0, 1] is half of ours."""
    if process == "ve" and centered:
        return Preconditioning(form="score", time="log", time_scale=4.0)
    return Preconditioning.named(PROCESSES[process])


def span(path: Path, process: str, levels: Tensor | None, scale: float) -> tuple[float, float]:
    """The lowest and the highest level; VE's stand in the file."""
    if process == "ddpm":
        ladder = ddpm()
        return float(ladder[0]), float(ladder[-1])
    if process != "ve":
        low, high = (VP() if process == "vp" else SubVP()).level(torch.tensor([START, 1.0], dtype=torch.float64))
        return float(low), float(high)
    if levels is None or not levels.numel() or not (levels > 0).all():
        raise BadFile(f"{path} holds no ladder of noise levels")
    return scale * float(levels.min()), scale * float(levels.max())
