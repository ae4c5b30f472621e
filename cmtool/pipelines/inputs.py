"""Which model and which data set a command means, and opening them."""

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from cmtool.bundled import NAMES, bundled, find_bundled
from cmtool.class_names import known_names, match_classes, some_names
from cmtool.core.denoiser import Denoiser
from cmtool.core.guidance import Guided
from cmtool.data_paths import is_list
from cmtool.datasets import Dataset, as_dataset
from cmtool.datasets.views import DatasetSlice
from cmtool.errors import Hint, MissingInput, Setting, UsageError, closest, printable
from cmtool.files.container import holds
from cmtool.files.header import KEY, Header
from cmtool.files.model_files import format_of, open_any
from cmtool.files.model_format import LoadedModel
from cmtool.files.runs import CHECKPOINT, latest_checkpoint
from cmtool.options import registry
from cmtool.options.data_spec import SLICE
from cmtool.options.fields import option_fields
from cmtool.options.stored_run import OF_ONE_CALL
from cmtool.options.types import Spec
from cmtool.pipelines.reporter import Reporter
from cmtool.settings import TrainOptions
from cmtool.user_paths import expand_home

__all__ = [
    "PATHS",
    "anchor_paths",
    "checkpoint_path",
    "class_index",
    "class_name",
    "dataset_facts",
    "kept_options",
    "load",
    "open_dataset",
    "open_model",
    "parse_slice",
]


T = TypeVar("T", bound=TrainOptions)
PATHS = ("teacher", "init", "guidance_model")


def open_dataset(spec: Mapping[str, Any], say: Callable[[str], None] = lambda line: None) -> Dataset:
    """``{"name": ..., "source": ..., "slice": "0::2", options}``; an empty one is a UsageError.

    ``say`` is called with what was passed over, and that a folder of the same name was not meant.
    """
    spec = dict(spec)
    source, cut = spec.pop("source", None), spec.pop("slice", None)
    if source is None and Path(spec["name"]).is_dir():
        say(f"'{spec['name']}' is the data set of this name; for the folder of this name write ./{spec['name']}")
    dataset = as_dataset(registry.build("datasets", spec, source))
    if cut is not None:
        part = parse_slice(str(cut))
        dataset = DatasetSlice(dataset, part.start, part.stop, part.step)
    if not len(dataset):
        raise UsageError(f"the data set '{spec['name']}' has no images" + (f" in [{cut}]" if cut else ""))
    for remark in dataset.remarks:
        say(remark)
    return dataset


def parse_slice(text: str) -> slice:
    """The slice that ``0:100`` or ``0::2`` stands for, with a step of 1 where there is none; UsageError."""
    if not SLICE.fullmatch(text[:60]):
        raise UsageError(f"slice: {text[:60]} is no part of a data set", "write slice: '0:100' or '0::2'")
    start, stop, step = ([int(part) if part else None for part in text.split(":")] + [None])[:3]
    return slice(start, stop, step or 1)


def dataset_facts(name: str, dataset: Dataset, conditional: bool = True) -> str:
    """``digits, 1,797 of 1x8x8, 10 classes: 0, 1, ...``: what is trained on."""
    size = f"{name}, {len(dataset):,} of {'x'.join(map(str, dataset.shape))}"
    if not dataset.classes:
        return f"{size}, no classes"
    classes = f"{len(dataset.classes):,} classes: {some_names(dataset.classes, 10)}"
    return f"{size}, {classes}" if conditional else f"{size}, its labels not used ({classes})"


def kept_options(options: T) -> T:
    """Those that a checkpoint and ``config.yaml`` keep, with whole paths; what is of one call has its default."""
    defaults = {d.name: d.default for key, d in option_fields(type(options)).items() if key in OF_ONE_CALL}
    return anchor_paths(replace(options, **defaults))


def anchor_paths(options: T) -> T:
    """The same options with whole paths, so that a run can be taken up from another working directory."""
    changed: dict[str, Any] = {name: _whole(path) for name in PATHS if (path := getattr(options, name, None))}
    if source := options.data.get("source"):
        parts = source.split(",") if is_list(source) and not Path(expand_home(source)).exists() else ()
        whole = ",".join(os.path.abspath(expand_home(part)) for part in parts)
        changed["data"] = Spec(options.data | {"source": whole or str(_whole(Path(source)))})
    if options.eval_ref and options.eval_ref not in registry.names("datasets"):
        changed["eval_ref"] = str(_whole(Path(options.eval_ref)))
    return replace(options, **changed)


def _whole(path: Path) -> Path:
    found = Path(expand_home(path))
    return Path(os.path.abspath(found)) if found.exists() else path


MOST = 40  # names of classes on a line


def load(
    path: str | Path,
    device: str | torch.device = "cpu",
    format: Mapping[str, Any] | None = None,
    backbone: Mapping[str, Any] | None = None,
) -> LoadedModel[Denoiser]:
    """Read a model, ours, bundled or of another program; it is called as ``loaded(x, sigma, labels) -> x_0``.

    ``x`` is [B, C, H, W] in [-1, 1] plus noise of standard deviation ``sigma`` [B]; ``labels`` is [B] (int64) or None.
    ``path`` is a file, a run directory, a folder of diffusers or the name of a bundled model.
    ``format`` and ``backbone`` are mappings of what the file of another program leaves open, such as
    ``format={"kind": "consistency"}, backbone={"num_head_channels": 64}``. Raises MissingInput when there is no such
    file, BadFile when it is damaged or is no model, UsageError when something must be said.
    """
    return open_any(checkpoint_path(Path(path)), device, format, backbone)


def open_model(
    path: Path | None,
    device: torch.device,
    console: Reporter,
    format: Mapping[str, Any] | None = None,
    backbone: Mapping[str, Any] | None = None,
    kind: str = "consistency",
) -> LoadedModel[Denoiser]:
    """The model that was named, else that of the last finished run, else the bundled one of a ``kind``.

    ``format`` and ``backbone`` say what the file of another program leaves open.
    """
    found = checkpoint_path(path or latest_checkpoint() or bundled(kind))
    model = open_any(found, device, format, backbone)
    header = model.header
    track = "" if holds(found, KEY) else header.average.get("ema", "")  # which of its networks a foreign file gave
    average = f", its average '{track}'" if track else ""
    seen = f", {header.images:,} images seen" if header.images else ""
    method = f", {header.method}" if header.method else ""
    console.say(printable(f"model: {found} ({header.kind}{method}{average}{seen})"))
    for remark in model.remarks:
        console.say(remark)
    return model


def checkpoint_path(path: Path) -> Path:
    """The checkpoint of a run directory, a bundled model by its name, or what was named itself.

    MissingInput for what is almost the name of a bundled one.
    """
    path = find_bundled(path)
    inside = path / CHECKPOINT
    if not path.exists():
        beside = [other.name for other in path.parent.iterdir()] if os.access(path.parent, os.R_OK | os.X_OK) else []
        near = closest(str(path), [*beside, *NAMES])
        if near in NAMES and near not in beside:
            raise MissingInput(f"there is no file {path}", f"did you mean {near}, which comes with cmtool?")
    return inside if path.is_dir() and (inside.exists() or format_of(path) is None) else path


def class_index(header: Header, klass: str | None) -> int | None:
    """The label of a class given by name or by number; None when none was asked for.

    A number is the class that is called so, where classes are called by numbers, and otherwise its place. UsageError
    for a class that there is not, and for a name that several have.
    """
    if klass is None:
        return None
    if not header.num_classes:
        raise UsageError(Hint("this model was trained without classes and takes no {}", Setting("class")))
    names = known_names(header.classes, header.num_classes)
    places = [k for k, name in enumerate(names) if name == klass]
    if len(places) > 1:
        raise UsageError(
            f"several classes are called '{klass}'", f"say which by its number: {', '.join(map(str, places))}"
        )
    try:
        (found,) = places or match_classes([klass], names)
    except UsageError:
        found = None
    if found is None:
        what = klass if klass.isdecimal() else f"'{klass}'"
        raise UsageError(f"there is no class {what}", f"classes are {_class_list(header)}")
    return found


def class_name(header: Header, label: int) -> str:
    """``2 (cat)``: the number of a class, and its name where that says more."""
    names = known_names(header.classes, header.num_classes)
    return str(label) if names[label] == str(label) else f"{label} ({names[label]})"


def _class_list(header: Header) -> str:
    """The names of all classes, as many as a line holds; or the numbers, where that is all they have."""
    if len(header.classes) == header.num_classes and list(header.classes) != list(map(str, range(header.num_classes))):
        return some_names(header.classes, MOST)
    return f"0 to {header.num_classes - 1}"


def describe_model(model: LoadedModel[Denoiser | Guided]) -> dict[str, Any]:
    """What a result says about the model that made it."""
    return {"path": str(model.path), "kind": model.header.kind, "sha256": model.header.sha256}
