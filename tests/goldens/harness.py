"""Recorded reference numbers, replayed through the public code of cmtool.

A case is a folder with a ``settings.json``; a claim is a function that proves the cases of one kind. Cases are found by
walking ``$CMTOOL_GOLDENS``, by default ``../shared/goldens`` beside the repository, so new ones of a known kind need no
code. A claim answers for every recorded output: what it does not check it must ``leave`` with a reason.
"""

import importlib.util
import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from cmtool.core.denoiser import Denoiser, Preconditioning

DEFAULT = Path(__file__).resolve().parents[3] / "shared" / "goldens"
ROOT = Path(os.environ.get("CMTOOL_GOLDENS") or DEFAULT).resolve()  # before any test changes its working directory

Prove = Callable[["Case"], None]
CLAIMS: dict[str, Prove] = {}
# Kinds whose networks are built as a format builds them, from the file or the arguments as a whole.
WHOLE = {"cm_unet", "gd_unet", "cm_consistency_loss_unet", "edm_net", "ect_net", "edm_pickle", "ect_pickle"}
WHOLE |= {"ssde_net", "edm2_net", "edm2_loss", "diffusers_unet"}
# How a case was made, and what its inputs and weights show by themselves.
SHOWN = {"seed", "shape", "recipe_only", "full", "model_type", "img_resolution", "img_channels"}


def claim(kind: str):
    """Register a function as the one that proves the cases of ``kind``."""

    def register(prove: Prove) -> Prove:
        assert kind not in CLAIMS, f"{kind} is claimed twice"
        CLAIMS[kind] = prove
        return prove

    return register


def folders() -> list[Path]:
    return sorted(path.parent for path in ROOT.rglob("settings.json"))


def name_of(folder: Path) -> str:
    return folder.relative_to(ROOT).as_posix()


def kind_of(folder: Path) -> str:
    return json.loads((folder / "settings.json").read_text())["kind"]


def readable(place: Path) -> bool:
    return (place / "golden_helpers.py").is_file()


def helpers() -> ModuleType:
    """The recorded data's own reader, loaded by its path; a folder of further cases may do without a copy."""
    path = next(place / "golden_helpers.py" for place in (ROOT, ROOT.parent, DEFAULT) if readable(place))
    spec = importlib.util.spec_from_file_location("golden_helpers", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Settings(Mapping[str, Any]):
    """A mapping that remembers what was read of it, so that a setting nobody looked at is found out."""

    def __init__(self, values: dict[str, Any]):
        self.values_of = {k: Settings(v) if isinstance(v, dict) else v for k, v in values.items()}
        self.read: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        value = self.values_of[key]
        self.read.add(key)
        return value

    def __contains__(self, key: object) -> bool:
        return key in self.values_of

    def __iter__(self) -> Iterator[str]:
        return iter(self.values_of)

    def __len__(self) -> int:
        return len(self.values_of)

    def unread(self) -> list[str]:
        """The names of what was not read, ``args.rho`` for a part of a part."""
        found = [key for key in self.values_of if key not in self.read | SHOWN]
        for key, value in self.values_of.items():
            if key in self.read and isinstance(value, Settings):
                found += [f"{key}.{part}" for part in value.unread()]
        return found

    def options(self, defaults: dict[str, Any]) -> dict[str, Any]:
        """All settings over the reference's defaults; one that the reference does not have is a mistake."""
        assert self.keys() <= defaults.keys(), f"unknown settings: {', '.join(sorted(self.keys() - defaults.keys()))}"
        return {key: self.get(key, default) for key, default in defaults.items()}


class Case:
    """One recorded run: its settings, and when asked for its weights, inputs, draws and outputs."""

    def __init__(self, folder: Path, golden: ModuleType):
        self.folder, self.golden = folder, golden
        self.settings = json.loads((folder / "settings.json").read_text())
        spec = self.settings["spec"]
        whole = self.settings["kind"] in WHOLE or self.settings["kind"].startswith("manifest")
        self.spec: Mapping[str, Any] = spec if whole else Settings(spec)
        self.open = {name.removeprefix("out.") for name in self.settings["tensors"] if name.startswith("out.")}

    @cached_property
    def loaded(self) -> tuple:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # the reader leaves its files to the collector
            return self.golden.load_case(str(self.folder))

    @property
    def weights(self) -> dict[str, dict[str, Tensor]]:
        return self.loaded[1]

    @property
    def inputs(self) -> dict[str, Tensor]:
        return self.loaded[2]

    @property
    def draws(self) -> list[Tensor]:
        return self.loaded[3]

    @property
    def outputs(self) -> dict[str, Tensor]:
        return self.loaded[4]

    @property
    def expected(self) -> Any:
        return self.loaded[5]

    @cached_property
    def tape(self) -> "Tape":
        return Tape(self.draws)

    def check(self, name: str, got: Tensor) -> None:
        """``got`` is the recorded output ``name`` within the case's tolerance."""
        self.open.discard(name)
        self.golden.check(name, got, self.outputs[name], self.settings["tolerance"])

    def near(self, name: str, got: Tensor, want: Tensor) -> None:
        """For what is recorded only in part or in another form than an output."""
        self.golden.check(name, got, want, self.settings["tolerance"])

    def leave(self, start: str, reason: str) -> None:
        """Say openly why the outputs whose names begin with ``start`` are not compared."""
        assert reason
        self.open -= {name for name in self.open if name.startswith(start)}


class Tape:
    """Stands in for Noise: the recorded draws, in the order they were made, whatever the seed and the stream."""

    def __init__(self, draws: list[Tensor]):
        self.draws = iter(draws)

    def next(self) -> Tensor:
        return next(self.draws)

    def normal(self, shape, stream: int = 0) -> Tensor:
        z = self.next()
        assert tuple(z.shape[1:]) == tuple(shape)
        return z


class OneHot(nn.Module):
    """EDM's networks take one-hot rows where ours take class numbers; no label is a row of zeros."""

    def __init__(self, net: nn.Module, classes: int):
        super().__init__()
        self.net, self.classes = net, classes

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        rows = x.new_zeros(len(x), self.classes)
        if labels is not None:
            rows = nn.functional.one_hot(labels, self.classes).to(x)
        return self.net(x, c_noise, class_labels=rows)


class Watched:
    """A denoiser that remembers what it was asked and what it answered."""

    def __init__(self, model):
        self.model, self.inputs, self.levels, self.answers = model, [], [], []

    def __call__(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        answer = self.model(x, sigma, labels)
        self.inputs.append(x)
        self.levels.append(sigma[0])
        self.answers.append(answer)
        return answer


SCALINGS = {"sigma_data": 0.5, "sigma_min": 0.002, "sigma_max": 80.0, "rho": 7.0}  # of OpenAI's ``KarrasDenoiser``


# Of score_sde's equations; the first is the one that a case always says.
SDE = {"name": None, "beta_min": 0.1, "beta_max": 20.0, "sigma_min": 0.01, "sigma_max": 50.0, "N": 1000}


def scalings(case: Case) -> dict[str, float]:
    """The arguments of OpenAI's denoiser: the case's, or their defaults."""
    return {key: float(case.spec.get(key, value)) for key, value in SCALINGS.items()}


def tiny_net(case: Case, weights: str, classes: int, tscale: float) -> nn.Module:
    """A tiny network with the channels that its weights have; its names begin with ``model.tiny`` where EDM's do."""
    tensors = case.weights[weights]
    if "model.tiny.conv1.weight" in tensors:
        prefix = "model.tiny."
        tensors = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    ch, cin = tensors["conv1.weight"].shape[:2]
    net = case.golden.TinyNet(cin, len(tensors["conv2.bias"]), ch=ch, num_classes=classes, tscale=tscale)
    net.load_state_dict(tensors)
    return net


def openai_model(case: Case, weights: str = "net", boundary: bool = False) -> Denoiser:
    """A tiny network behind OpenAI's preconditioning; ``boundary`` is their ``distillation=True``."""
    of = scalings(case)
    net = tiny_net(case, weights, case.spec.get("num_classes", 0), case.spec.get("tscale", 0.01))
    return Denoiser(net, Preconditioning(of["sigma_data"], of["sigma_min"] if boundary else 0.0, "log-1000"))


def edm_model(case: Case, boundary: float = 0.0, weights: str = "net", tscale: float | None = None) -> Denoiser:
    """A tiny network behind EDM's preconditioning."""
    options = case.spec["net"]
    classes = options.get("label_dim", 0)
    net = tiny_net(case, weights, classes, options.get("tscale", 1.0) if tscale is None else tscale)
    preconditioning = Preconditioning(options.get("sigma_data", 0.5), boundary, "log")
    return Denoiser(OneHot(net, classes) if classes else net, preconditioning)


def classes_of(rows: Tensor | None) -> Tensor | None:
    """Class numbers from one-hot rows."""
    return None if rows is None else rows.argmax(1)


def gradients(model: Denoiser) -> dict[str, Tensor]:
    """The gradient of every weight under the tiny network's own names; consumed, so that the next starts from zero."""
    found = {key.removeprefix("net."): p.grad for key, p in model.net.named_parameters()}
    model.zero_grad(set_to_none=True)
    return {key: torch.zeros(0) if grad is None else grad for key, grad in found.items()}
