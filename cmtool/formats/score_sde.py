"""``.pth`` checkpoints of score_sde: the state of a training, whose average has no names.

The network is under "model", each name behind "module."; "ema" holds a list of the same tensors, averaged, in the order
of the parameters and without those that are not learnt. Images are in [0, 1] for VE, in [-1, 1] for the others, and all
are [-1, 1] here: levels of VE become twice as large. Source: Song et al. 2021, arXiv 2011.13456, appendix C.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from cmtool.core.denoiser import Denoiser
from cmtool.errors import BadFile, UsageError, unknown_name
from cmtool.files.checkpoint import load_weights, without_memory
from cmtool.files.header import Header
from cmtool.files.model_format import Format, LoadedModel
from cmtool.files.safe_pickle.torch_archive import state_dict
from cmtool.formats.score_sde_levels import PROCESSES, ScoreSDELevels
from cmtool.formats.score_sde_networks import LIST, ScoreSDEShape, read_architecture
from cmtool.formats.weight_files import read_weights, seal, shard_of
from cmtool.formats.wrappers import unwrap
from cmtool.options import registry

__all__ = ["score_sde"]

FIRST = (f"{LIST}0.W", f"{LIST}0.weight")  # one of which every network has
# The side of the images of published networks, by width, mults and levels with attention.
SIDES = {
    (128, (1, 2, 2, 2), (1,)): 32,
    (128, (1, 1, 2, 2, 2, 2, 2), (4,)): 256,
    (128, (1, 1, 2, 2, 4, 4), (4,)): 256,
    (16, (1, 2, 4, 8, 16, 32, 32, 32), (6,)): 1024,
}


def recognize(path: Path) -> bool:
    """A training, or a network alone in any file of tensors, has the first weights of score_sde's list."""
    return path.is_file() and any(shard_of(path, first) for first in FIRST)


def read_score_sde(
    path: Path,
    *,
    backbone: Mapping[str, Any] | None = None,
    process: str | None = None,
    side: int | None = None,
    centered: bool | None = None,
    scale_by_sigma: bool | None = None,
    beta_min: float = 0.1,
    beta_max: float = 20.0,
    ema: bool = True,
) -> LoadedModel[Denoiser]:
    """A network of score_sde as a denoiser, with a header; its average unless ``ema`` is false.

    ``process`` is "ve", "vp" or "subvp", or of numbered steps "smld" (VE) or "ddpm" (VP); a network with Fourier
    features is of "ve" unless it is said. ``beta_min`` and ``beta_max`` are those of VP. ``side`` is that of the
    images, and ``centered`` says that they were in [-1, 1]; ``scale_by_sigma`` whether VE's output is divided by the
    level. ``backbone`` may hold what the tensors do not show, the ``taps`` of the filter, ``rescale`` and the
    ``nonlinearity``. BadFile for a damaged file; UsageError that says what must be given.
    """
    if process is not None and process not in PROCESSES:
        raise unknown_name("process", process, PROCESSES)
    tensors, sigmas, averaged = weights(path, ema)
    shown = read_architecture(path, tensors)
    spec = {**shown.backbone, **shown.guessed, **agree(path, shown, dict(backbone or {}))}
    process = process or ("ve" if shown.fourier else None)
    side = side or SIDES.get(shown.layers)
    require(path, process, side)
    assert process and side
    centered = process not in ("ve", "smld") if centered is None else centered
    levels = ScoreSDELevels(path, process, shown.fourier, centered, scale_by_sigma, beta_min, beta_max, sigmas)
    preconditioning = levels.preconditioning()
    sigma_min, sigma_max = levels.span()

    shape = (shown.channels, side, side)
    with without_memory():
        net = registry.build("backbones", spec, shape, 0)
    load_weights(path, net, tensors)
    model = Denoiser(net, preconditioning)
    header = Header(
        kind="score",
        backbone=spec,
        preconditioning=asdict(model.preconditioning),
        data={"name": "unknown", "shape": list(shape), "classes": [], "notice": ""},
        num_classes=0,
        sigma_min=sigma_min,
        sigma_max=sigma_max,
        method="score_sde",
        average={"track": "ema"} if averaged else {},
        sha256=seal(path),
    )
    return LoadedModel(model, header, path)


def weights(path: Path, ema: bool) -> tuple[dict[str, Tensor], Tensor | None, bool]:
    """The tensors by their names in the network, the ladder of levels, and whether they are an average.

    A file without any average, such as a network alone, is taken as it is; BadFile where its average does not fit.
    """
    found = read_weights(path)
    first = next((name for name in FIRST if shard_of(path, name)), FIRST[0])
    part = unwrap(path, found, (first,), ema)
    named, average = part.tensors, part.averaged
    sigmas = named.pop("sigmas", None)
    if not all(name.startswith(LIST) for name in named):
        raise BadFile(f"{path} holds tensors that no network of score_sde has")
    if ema and isinstance(found, dict) and "ema" in found:
        average = True
        named |= shadows(path, found["ema"], [name for name in named if name != f"{LIST}0.W"], named)
    return named, sigmas, average


def shadows(path: Path, ema: Any, names: list[str], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The nameless average under the names of the learnt tensors, in whose order it stands."""
    tensors = ema.get("shadow_params") if isinstance(ema, dict) else None
    if not isinstance(tensors, list) or len(tensors) != len(names):
        raise BadFile(f"{path} has no average that fits its network", "take the network itself: --set format.ema=false")
    found = state_dict(path, dict(zip(names, tensors, strict=True)))
    for name, tensor in found.items():
        if tensor.shape != like[name].shape:
            raise BadFile(f"{path} has an average of another network: '{name}' is {list(tensor.shape)}")
    return found


def agree(path: Path, shown: ScoreSDEShape, given: dict[str, Any]) -> dict[str, Any]:
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


score_sde = Format(read_score_sde, recognize, seal)
