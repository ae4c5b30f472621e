"""``.pth`` checkpoints of score_sde: the state of a training, whose average has no names.

The network is under "model", each name behind "module."; "ema" holds a list of the same tensors, averaged, in the order
of the parameters and without those that are not learnt. Images are in [0, 1] for VE, in [-1, 1] for the others, and all
are [-1, 1] in cmtool: VE's sigmas become twice as large. Source: Song et al. 2021, arXiv 2011.13456, appendix C.
"""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

from torch import Tensor

from cmtool.core.denoiser import Denoiser
from cmtool.errors import BadFile, Hint, Setting
from cmtool.files.checkpoint import load_weights
from cmtool.files.header import Header
from cmtool.files.model_format import Format, LoadedModel
from cmtool.files.safe_pickle.torch_files import state_dict
from cmtool.formats.common import EmaOption, SideOption, build_said, check_backbone, require, unknown_data
from cmtool.formats.score_sde_networks import LIST, read_ncsnpp_shape
from cmtool.formats.score_sde_sigmas import PROCESSES, ScoreSDESigmas
from cmtool.formats.weight_files import digest_shards, holds_weights, read_weights
from cmtool.formats.wrappers import unwrap
from cmtool.options.plugin_option import Option

__all__ = ["score_sde"]

FIRST = (f"{LIST}0.W", f"{LIST}0.weight")  # one of which every network has
# The side of the images of published networks, by width, mults and levels with attention.
SIDES = {
    (128, (1, 2, 2, 2), (1,)): 32,
    (128, (1, 1, 2, 2, 2, 2, 2), (4,)): 256,
    (128, (1, 1, 2, 2, 4, 4), (4,)): 256,
    (16, (1, 2, 4, 8, 16, 32, 32, 32), (6,)): 1024,
}


def is_score_sde(path: Path) -> bool:
    """A training, or a network alone in any file of tensors, has the first weights of score_sde's list."""
    return path.is_file() and any(holds_weights(path, first) for first in FIRST)


def read_score_sde(
    path: Path,
    backbone: Mapping[str, Any],
    *,
    process: Annotated[
        str | None, Option("the process, VE, VP or sub-VP; smld and ddpm have numbered steps", choices=PROCESSES)
    ] = None,
    side: SideOption = None,
    centered: Annotated[bool | None, Option("whether images were in [-1, 1], not in [0, 1]")] = None,
    scale_by_sigma: Annotated[bool | None, Option("whether the output of VE's network is divided by sigma")] = None,
    beta_min: Annotated[float, Option("beta at time 0 of VP and sub-VP")] = 0.1,
    beta_max: Annotated[float, Option("beta at time 1 of VP and sub-VP")] = 20.0,
    ema: EmaOption = True,
) -> LoadedModel[Denoiser]:
    """Networks of score_sde: NCSN++, DDPM++ and DDPM under VE, VP and sub-VP.

    Formula: ``D(x, sigma) = x + sigma^2 s(x, sigma)``, s the score that the network gives
    Paper: Song et al. 2021, arXiv 2011.13456, sections 3.4 and appendix C.
    Use: for ``.pth`` files of score_sde's training, or such a network alone. ``process`` and ``side`` must be said
    where the tensors leave them open: a network with Fourier features is of ``ve`` unless ``process`` says another,
    and the published architectures have known sides. ``backbone`` may hold what the tensors do not show: the
    ``resample_filter``, ``skip_rescale`` and the ``nonlinearity``.

    BadFile for a damaged file; UsageError that says what must be given.
    """
    tensors, discrete_sigmas, averaged = weights(path, ema)
    shown = read_ncsnpp_shape(path, tensors)
    side = side or SIDES.get(shown.layers)
    if side:
        shown = replace(shown, backbone={**shown.backbone, "attn_resolutions": shown.attn_resolutions(side)})
    check_backbone(path, shown.backbone, backbone, free=())
    spec = {**shown.backbone, **shown.guessed, **backbone}
    process = process or ("ve" if shown.fourier else None)
    require(path, {} | ({} if process else {"format.process": "vp"}) | ({} if side else {"format.side": 32}))
    assert process and side
    centered = process not in ("ve", "smld") if centered is None else centered
    sigmas = ScoreSDESigmas(path, process, shown.fourier, centered, scale_by_sigma, beta_min, beta_max, discrete_sigmas)
    preconditioning = sigmas.preconditioning()
    sigma_min, sigma_max = sigmas.span()

    shape = (shown.channels, side, side)
    net = build_said(spec, shape, 0)
    load_weights(path, net, tensors)
    model = Denoiser(net, preconditioning)
    header = Header(
        kind="score",
        backbone=spec,
        preconditioning=asdict(model.preconditioning),
        data=unknown_data(shape),
        num_classes=0,
        sigma_min=sigma_min,
        sigma_max=sigma_max,
        method="score_sde",
        average={"ema": "ema"} if averaged else {},
        sha256=digest_shards(path),
    )
    return LoadedModel(model, header, path)


def weights(path: Path, ema: bool) -> tuple[dict[str, Tensor], Tensor | None, bool]:
    """The tensors by their names in the network, the sigmas of its discrete schedule, and whether they are an average.

    A file without any average, such as a network alone, is taken as it is; BadFile where its average does not fit.
    """
    found = read_weights(path)
    first = next((name for name in FIRST if holds_weights(path, name)), FIRST[0])
    part = unwrap(path, found, (first,), ema)
    named, average = part.tensors, part.averaged
    sigmas = named.pop("sigmas", None)
    if not all(name.startswith(LIST) for name in named):
        raise BadFile(f"{path} holds tensors that no network of score_sde has")
    if ema and isinstance(found, dict) and "ema" in found:
        average = True
        named |= name_average(path, found["ema"], [name for name in named if name != f"{LIST}0.W"], named)
    return named, sigmas, average


def name_average(path: Path, ema: Any, names: list[str], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The nameless average under the names of the learnt tensors, in whose order it stands."""
    tensors = ema.get("shadow_params") if isinstance(ema, dict) else None
    if not isinstance(tensors, list) or len(tensors) != len(names):
        raise BadFile(
            f"{path} has no average that fits its network",
            Hint("take the network itself: {}", Setting("format.ema", "false")),
        )
    found = state_dict(path, dict(zip(names, tensors, strict=True)))
    for name, tensor in found.items():
        if tensor.shape != like[name].shape:
            raise BadFile(f"{path} has an average of another network: '{name}' is {list(tensor.shape)}")
    return found


score_sde = Format(read_score_sde, is_score_sde, digest_shards)
