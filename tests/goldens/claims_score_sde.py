"""score_sde's networks, read from checkpoints such as its training writes."""

import re
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from harness import Case, claim
from torch import Tensor

import cmtool
from cmtool.core.denoiser import Denoiser, broadcast_like
from cmtool.core.discrete_processes import DDPM
from cmtool.core.process import VE, VP, Process, SubVP
from cmtool.formats.score_sde import SIDES
from cmtool.formats.score_sde_networks import read_ncsnpp_shape
from cmtool.options import registry

PROCESSES: dict[str, tuple[str, str, type[Process]]] = {  # of ours: with times, with numbered steps
    "VESDE": ("ve", "smld", VE),
    "VPSDE": ("vp", "ddpm", VP),
    "subVPSDE": ("subvp", "subvp", SubVP),
}
SIDES_OF = {"cifar10": {32}, "celeba": {64}, "celebahq": {256, 1024}, "ffhq": {256, 1024}}  # in the names of files
SIDES_OF |= {"bedroom": {256}, "church": {256}, "256": {256}, "1024": {1024}}
NETWORKS = {"ddpm": "ddpm", "ddpmpp": "ncsnpp", "ncsnpp": "ncsnpp"}


class Reference:
    """A case's configuration and its equation, each setting where the reference reads it."""

    def __init__(self, case: Case):
        self.case, self.config = case, case.expected["config"]
        self.model, self.centered = self.config["model"], self.config["data"]["centered"]
        self.fourier = self.model["name"] == "ncsnpp" and self.model["embedding_type"] == "fourier"
        self.continuous = case.spec.get("continuous", self.config["training"].get("continuous", True))
        self.sde = {key: value for key, value in case.spec["sde"].items() if key != "name"}
        self.steps = self.sde.pop("N", 1000)
        self.exploding = case.spec["sde"]["name"] == "VESDE"

    @property
    def process(self) -> Process:
        return PROCESSES[self.case.spec["sde"]["name"]][2](**self.sde)

    @property
    def about(self) -> dict[str, Any]:
        """What their files do not hold, as our options."""
        names = PROCESSES[self.case.spec["sde"]["name"]]
        format: dict[str, Any] = {"process": names[not self.continuous], "side": self.config["data"]["image_size"]}
        format["centered"] = self.centered if self.exploding else True
        format["scale_by_sigma"] = self.model["scale_by_sigma"] if self.exploding else False
        format |= {key: value for key, value in self.sde.items() if key.startswith("beta")}
        backbone: dict[str, Any] = {key: self.model[key] for key in ("nonlinearity", "dropout")}
        if self.model["name"] == "ncsnpp":
            backbone["resample_filter"] = self.model["fir_kernel"] if self.model["fir"] else [1, 1]
            backbone["skip_rescale"] = self.model["skip_rescale"]
        return {"format": format, "backbone": backbone}

    @cached_property
    def denoiser(self) -> Denoiser:
        """Read from their file, or from one with their tensors alone in their layout."""
        if (self.case.folder / "checkpoint.pth").is_file():
            return cmtool.load(self.case.folder / "checkpoint.pth", **self.about).model
        with TemporaryDirectory() as place:
            path, named = Path(place) / "checkpoint_1.pth", self.case.weights["model"]
            learnt = [tensor for name, tensor in named.items() if name not in ("sigmas", "all_modules.0.W")]
            model = {f"module.{name}": tensor for name, tensor in named.items()}
            ema = {"decay": 0.999, "num_updates": 1, "shadow_params": learnt}
            torch.save({"optimizer": {}, "model": model, "ema": ema, "step": 1}, path)
            return cmtool.load(path, **self.about).model

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        """Theirs map images in [0, 1] to [-1, 1], and may divide by sigma, where ours leave both to others."""
        out = self.denoiser.net(x if self.centered else 2 * x - 1, told.log() if self.fourier else told)
        if not self.model["scale_by_sigma"]:
            return out
        return out / broadcast_like(
            told if self.fourier else self.case.weights["model"]["sigmas"][told.long()].to(out), out
        )

    def score(self, x: Tensor, t: Tensor) -> Tensor:
        """Through our denoiser wherever it stands for theirs: not between numbered steps, nor for VP of [0, 1]."""
        process, steps = self.process, self.steps
        if not self.exploding and not self.continuous:
            at, ladder = t * (steps - 1), DDPM.linear(steps, **self.sde)
            return -self.forward(x, at.to(x)) / broadcast_like(ladder.deviation(at.long() + 1.0), x)
        if not self.exploding and not self.centered:
            return -self.forward(x, (999 * t).to(x)) / broadcast_like(process.deviation(t), x)
        level = process.sigma(t)
        if not self.continuous:
            level = self.case.weights["model"]["sigmas"][((1 - t) * (steps - 1)).round().long()].double()
        unit = 1 if self.centered else 2  # of our levels in theirs
        sided = x.double() if self.centered else 2 * x.double() - 1
        clean, sigma = sided / broadcast_like(process.scale(t), sided), unit * level
        return unit * (self.denoiser(clean, sigma) - clean) / broadcast_like(process.scale(t) * sigma**2, clean)


@claim("ssde_net")
@torch.no_grad()
def networks(case: Case) -> None:
    reference = Reference(case)
    case.check("forward", reference.forward(case.inputs["x"], case.inputs["time_cond"]))
    case.check("score", reference.score(case.inputs["x"], case.inputs["t"].double()).float())


@claim("manifest_ssde")
def published(case: Case) -> None:
    """Of every published file the network that its tensors tell has the same names, shapes and order of them.

    The order is that of the list that holds the average; ``sigmas`` is read as the range of the levels. A file's name
    is compared as far as it has words that we know.
    """
    for name, recorded in case.expected.items():
        theirs = {key: value for key, value in recorded["state"].items() if key != "sigmas"}
        shown = read_ncsnpp_shape(
            case.folder, {key: torch.empty(shape, device="meta") for key, (shape, _) in theirs.items()}
        )
        words, side = set(re.split(r"[\W_]+", name)), SIDES[shown.layers]
        assert all(side in SIDES_OF[word] for word in words & SIDES_OF.keys())
        assert {NETWORKS[word] for word in words & NETWORKS.keys()} <= {shown.backbone["name"]}
        assert shown.fourier == ("all_modules.0.W" in theirs)
        with torch.device("meta"):
            spec = {**shown.backbone, **shown.guessed}
            net = registry.build("backbones", spec, (shown.channels, side, side), 0)
        found = {key: [list(v.shape), str(v.dtype).removeprefix("torch.")] for key, v in net.state_dict().items()}
        assert list(found.items()) == list(theirs.items())
        frozen = theirs.get("all_modules.0.W", [[0]])[0][0]
        assert sum(p.numel() for p in net.parameters()) + frozen == recorded["n_params"]
