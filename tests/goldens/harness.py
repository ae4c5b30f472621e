"""Recorded reference numbers, replayed through the public code of cmtool.

A case is a folder with a ``settings.json``; a claim is a function that proves the cases of one kind. Cases are found by
walking ``$CMTOOL_GOLDENS``, by default ``../shared/goldens`` beside the repository, so new ones of a known kind need no
code. A claim answers for every recorded output: what it does not check it must ``leave`` with a reason.
"""

import importlib.util
import json
import os
import warnings
from collections.abc import Callable
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


class Case:
    """One recorded run: its settings, and when asked for its weights, inputs, draws and outputs."""

    def __init__(self, folder: Path, golden: ModuleType):
        self.folder, self.golden = folder, golden
        self.settings = json.loads((folder / "settings.json").read_text())
        self.spec: dict[str, Any] = self.settings["spec"]
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


def openai_model(case: Case, weights: str = "net", sigma_min: float = 0.0) -> Denoiser:
    """A tiny network behind OpenAI's preconditioning; ``sigma_min`` 0.002 is their ``distillation=True``."""
    net = case.golden.TinyNet(num_classes=case.spec.get("num_classes", 0), tscale=0.01)
    net.load_state_dict(case.weights[weights])
    return Denoiser(net, Preconditioning(0.5, sigma_min, "log-1000"))


def edm_model(case: Case, sigma_min: float = 0.0, weights: str = "net", tscale: float = 1.0) -> Denoiser:
    """A tiny network behind EDM's preconditioning; EDM's names of its weights begin with ``model.tiny``."""
    options = case.spec["net"]
    classes = options.get("label_dim", 0)
    tensors = {k.removeprefix("model.tiny."): v for k, v in case.weights[weights].items() if k.startswith("model.")}
    outputs = len(tensors["conv2.bias"])  # twice the channels where the variance is predicted, too
    net = case.golden.TinyNet(cout=outputs, num_classes=classes, tscale=tscale)
    net.load_state_dict(tensors)
    return Denoiser(OneHot(net, classes) if classes else net, Preconditioning(0.5, sigma_min, "log"))


def classes_of(rows: Tensor | None) -> Tensor | None:
    """Class numbers from one-hot rows."""
    return None if rows is None else rows.argmax(1)


def gradients(model: Denoiser) -> dict[str, Tensor]:
    """The gradient of every weight under the tiny network's own names; consumed, so that the next starts from zero."""
    found = {key.removeprefix("net."): p.grad for key, p in model.net.named_parameters()}
    model.zero_grad(set_to_none=True)
    return {key: torch.zeros(0) if grad is None else grad for key, grad in found.items()}
