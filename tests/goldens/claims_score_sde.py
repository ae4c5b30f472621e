"""score_sde's networks, read from checkpoints such as its training writes."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from harness import Case, claim

import cmtool
from cmtool import registry
from cmtool.core.denoiser import Denoiser, like
from cmtool.core.process import VE, VP, Process, SubVP
from cmtool.formats.score_sde import SIDES
from cmtool.formats.score_sde_shapes import read_off

PROCESSES: dict[str, tuple[str, Process]] = {
    "VESDE": ("ve", VE()),
    "VPSDE": ("vp", VP()),
    "subVPSDE": ("subvp", SubVP()),
}


def model_of(case: Case) -> Denoiser:
    config: dict[str, Any] = case.expected["config"]
    about: dict[str, Any] = {
        "format": {
            "side": config["data"]["image_size"],
            "centered": config["data"]["centered"],
            "process": PROCESSES[case.spec["sde"]["name"]][0],
        }
    }
    if config["model"]["name"] == "ncsnpp":
        taps = config["model"]["fir_kernel"] if config["model"]["fir"] else [1, 1]
        about["backbone"] = {"taps": taps, "rescale": config["model"]["skip_rescale"]}
    if (case.folder / "checkpoint.pth").is_file():
        return cmtool.load(case.folder / "checkpoint.pth", **about)
    with TemporaryDirectory() as place:
        path, named = Path(place) / "checkpoint_1.pth", case.weights["model"]
        learnt = [tensor for name, tensor in named.items() if name not in ("sigmas", "all_modules.0.W")]
        model = {f"module.{name}": tensor for name, tensor in named.items()}
        ema = {"decay": 0.999, "num_updates": 1, "shadow_params": learnt}
        torch.save({"optimizer": {}, "model": model, "ema": ema, "step": 1}, path)
        return cmtool.load(path, **about)


@claim("ssde_net")
@torch.no_grad()
def networks(case: Case) -> None:
    """Their VE networks divide by sigma, and take images in [0, 1] that they map to [-1, 1], where ours are."""
    config, model = case.expected["config"], model_of(case)
    x, told = case.inputs["x"], case.inputs["time_cond"]
    sided = x if config["data"]["centered"] else 2 * x - 1
    fourier = config["model"]["embedding_type"] == "fourier"
    out = model.net(sided, told.log() if fourier else told)
    case.check("forward", out / like(told, out) if config["model"]["scale_by_sigma"] else out)

    process, t = PROCESSES[case.spec["sde"]["name"]][1], case.inputs["t"].double()
    unit = 1 if config["data"]["centered"] else 2  # of our levels in theirs
    clean = sided.double() / like(process.scale(t), sided.double())
    sigma = unit * process.level(t)
    score = unit * (model(clean, sigma) - clean) / like(process.scale(t) * sigma**2, clean)
    case.check("score", score.float())


@claim("manifest_ssde")
def published(case: Case) -> None:
    """Same names, in the order of the list that holds the average; ``sigmas`` is read as the range of the levels."""
    for name, recorded in case.expected.items():
        kind = "ncsnpp" if "ncsnpp" in name else "ddpmpp"
        with torch.device("meta"):
            net = registry.build(
                "backbones", {"name": kind, "width": 128, "blocks": 4, "mults": [1, 2, 2, 2]}, (3, 32, 32), 0
            )
        found = {key: [list(v.shape), str(v.dtype).removeprefix("torch.")] for key, v in net.state_dict().items()}
        theirs = {key: value for key, value in recorded["state"].items() if key != "sigmas"}
        assert list(found.items()) == list(theirs.items())
        assert sum(value.numel() for value in net.state_dict().values()) == recorded["n_params"]
        shown = read_off(case.folder, net.state_dict())
        assert SIDES[shown.layers] == 32
        assert (shown.backbone["blocks"], shown.fourier) == (4, kind == "ncsnpp")
