"""From the options of a training command to the parts it trains."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

import cmtool
from cmtool.bundled import bundled
from cmtool.class_names import known_names, match_classes, some_names
from cmtool.core.denoiser import Denoiser
from cmtool.datasets.views import RelabelledDataset
from cmtool.errors import Hint, Run, Setting, UsageError
from cmtool.files.header import Header
from cmtool.files.model_files import open_any, parent_record
from cmtool.files.model_format import LoadedModel
from cmtool.objectives.objective import Objective
from cmtool.options import registry
from cmtool.options.ema_spec import parse_ema_specs
from cmtool.pipelines.guidance import apply_guidance
from cmtool.pipelines.inputs import checkpoint_path, kept_options, open_dataset
from cmtool.settings import DistillOptions, TrainCtOptions, TrainOptions, TrainScoreOptions
from cmtool.training.augment import Augment
from cmtool.training.batches import BatchConfig, Batches
from cmtool.training.cache import Storage
from cmtool.training.setup import add_conditions, build_network, build_state, choose_preconditioning
from cmtool.training.state import State

__all__ = ["TrainingJob", "build_training"]


@dataclass
class TrainingJob:
    """What is trained, on what, and what its checkpoints will say about it."""

    state: State
    batches: Batches
    header: Header
    dataset: Any
    remarks: Sequence[str] = ()


@dataclass(frozen=True)
class ModelStart:
    """A network before training: its spec, and the model whose weights it starts from."""

    objective: Objective
    backbone: Mapping[str, Any]
    sigma_data: float
    parent: LoadedModel[Denoiser] | None = None
    path: Path | None = None
    guide: Path | None = None
    augment: Augment | None = None


Parent = LoadedModel[Denoiser] | None


def build_training(
    options: TrainOptions, device: torch.device, dataset: Any = None, parent: Parent = None
) -> TrainingJob:
    """Data, objective, network, optimizer and averages.

    ``dataset`` and ``parent``, the teacher or the model to start from, are those of the options where they are not
    given. UsageError where options, data and parent do not go together.
    """
    dataset, remarks = open_dataset(options.data) if dataset is None else dataset, ()
    num_classes = len(dataset.classes) if options.conditional else 0
    start = STARTS[type(options)](options, parent)
    requirements = start.objective.requirements
    if start.augment and len(dataset.shape) != 3:
        flag = Setting("augment")
        raise UsageError(Hint("{} changes images, and these data are points", flag), Hint("leave out {}", flag))
    if start.parent is not None:
        dataset, remarks = _fit_dataset(start.parent.header, dataset, options.conditional, start.path)
        num_classes = start.parent.header.num_classes

    torch.manual_seed(options.seed)
    net = _network(start, tuple(dataset.shape), num_classes)
    given = start.parent.model.preconditioning if start.parent else None
    model = Denoiser(net, choose_preconditioning(requirements, start.sigma_data, given)).to(device)
    objective, averages = start.objective.to(device), parse_ema_specs(options.ema)
    state = build_state(model, objective, options.optimizer, options.lr, averages)
    config = BatchConfig(
        options.batch, options.seed, options.flip, num_classes > 0, options.label_dropout, start.augment
    )
    storage = Storage(device, None if options.cache is None else options.cache * 10**6)
    batches = Batches(dataset, config, requirements, storage)
    return TrainingJob(state, batches, _header(options, start, dataset, num_classes, model), dataset, remarks)


def _network(start: ModelStart, shape: tuple[int, ...], num_classes: int) -> torch.nn.Module:
    if start.parent is None:
        return build_network(start.backbone, shape, num_classes, {}, {})
    try:
        weights = start.parent.model.net.state_dict()
        return build_network(start.backbone, shape, num_classes, start.parent.header.backbone, weights)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise UsageError(f"the network of {start.path} does not fit this one: {reason}") from error


def _score(options: TrainScoreOptions, parent: Parent) -> ModelStart:
    objective = registry.build("train_score", options.method, **_sigmas(options, options.sigma_data))
    augment = _augment(options)
    backbone = add_conditions(options.backbone, objective.requirements, augment)
    return ModelStart(objective, backbone, options.sigma_data, augment=augment)


def _augment(options: TrainOptions) -> Augment | None:
    return Augment.edm(options.augment) if options.augment else None


def _ct(options: TrainCtOptions, parent: Parent) -> ModelStart:
    if parent is None and options.init:
        parent = open_any(checkpoint_path(options.init))
    path = parent.path if parent else None
    sigma_data = parent.model.preconditioning.sigma_data if parent else options.sigma_data
    objective = registry.build("train_ct", options.method, **_sigmas(options, sigma_data))
    _check_start(objective, options.method["name"], parent, path)
    augment = _augment(options)
    backbone = parent.header.backbone if parent else options.backbone
    backbone = add_conditions(backbone, objective.requirements, augment)
    return ModelStart(objective, backbone, sigma_data, parent, path, augment=augment)


def _check_start(objective: Objective, method: str, parent: LoadedModel[Denoiser] | None, path: Path | None) -> None:
    """UsageError for a method that goes on from a kind of model that was not given."""
    kind, wanted = parent.header.kind if parent else None, objective.requirements.starts_from
    if wanted in (None, kind):
        return
    found = f"{path} is a {kind} model" if parent else Hint("there is no {}", Setting("init"))
    first, then = Run("train-ct", method="ect"), Hint.join([Setting("method", method), Setting("init"), "RUN"])
    raise UsageError(
        Hint("'{}' goes on from a {} model, and {}", method, wanted or "", found),
        Hint("train one first, with '{}', then: {}", first, then),
    )


def _distill(options: DistillOptions, parent: Parent) -> ModelStart:
    teacher = parent or open_any(checkpoint_path(options.teacher or bundled("score")))
    path = teacher.path
    teacher.model.requires_grad_(False)
    if teacher.header.kind != "score":
        raise UsageError(
            f"{path} is a consistency model, and distill learns from a score model",
            Hint(
                "train one with '{}', or go on training this one with '{} {}'",
                Run("train-score"),
                Run("train-ct"),
                Setting("init"),
            ),
        )
    sigma_data = teacher.model.preconditioning.sigma_data
    followed = apply_guidance(teacher, options).model
    objective = registry.build("distill", options.method, followed, **_sigmas(options, sigma_data))
    guide = checkpoint_path(options.guidance_model) if options.guidance_model else None
    augment = _augment(options)
    backbone = add_conditions(teacher.header.backbone, objective.requirements, augment)
    if augment:
        _check_teacher(teacher, path, options)
    return ModelStart(objective, backbone, sigma_data, teacher, path, guide, augment)


def _check_teacher(teacher: LoadedModel[Denoiser], path: Path, options: DistillOptions) -> None:
    """UsageError for a teacher that does not know how an image was augmented."""
    if not teacher.header.backbone.get("augment_dim"):
        raise UsageError(
            f"{path} was trained without augmentation, and does not know augmented images",
            Hint("leave out {}, or train a teacher with it: {}", Setting("augment"), Run("train-score", augment=0.12)),
        )
    if options.guidance != 1:
        hint = Hint("leave out {} or {}", Setting("augment"), Setting("guidance"))
        raise UsageError("a guided teacher takes no augment labels", hint)


STARTS: dict[type, Callable[[Any, Parent], ModelStart]] = {
    TrainScoreOptions: _score,
    TrainCtOptions: _ct,
    DistillOptions: _distill,
}


def _sigmas(options: TrainOptions, sigma_data: float) -> dict[str, float]:
    return {"sigma_min": options.sigma_min, "sigma_max": options.sigma_max, "sigma_data": sigma_data}


def _fit_dataset(header: Header, dataset: Any, conditional: bool, path: Path | None) -> tuple[Any, Sequence[str]]:
    """The data under the class numbers of the parent, and what is to be said of that.

    UsageError for data of another shape than what the parent was trained on, or with a class that it does not know.
    """
    if header.shape != tuple(dataset.shape):
        theirs, ours = ("x".join(map(str, shape)) for shape in (header.shape, dataset.shape))
        size = "x".join(map(str, dict.fromkeys(header.shape[1:])))  # one number of a square
        hint = Hint("the size of data is often a choice: {}", Setting("data.size", size))
        raise UsageError(f"{path} makes {theirs} images, and the data are {ours}", hint)
    if not header.num_classes:
        return dataset, [f"{path} knows no classes: the labels are not used"] if conditional and dataset.classes else []
    if not (conditional and dataset.classes):
        raise UsageError(
            f"{path} knows {header.num_classes} classes, and the data have none",
            Hint(
                "give {} a folder with a folder for each class, and leave {} out",
                Setting("data"),
                Setting("conditional", False),
            ),
        )
    theirs = known_names(header.classes, header.num_classes)
    numbers = match_classes(dataset.classes, theirs, "the data", str(path))
    if tuple(dataset.classes) == theirs:
        return dataset, []
    pairs = [f"{name} is {theirs[k]}, class {k}" for name, k in zip(dataset.classes, numbers, strict=True)]
    return RelabelledDataset(dataset, numbers, theirs), [f"the classes of the data in {path}: {some_names(pairs, 10)}"]


def _header(options: TrainOptions, start: ModelStart, dataset: Any, num_classes: int, model: Denoiser) -> Header:
    requirements = start.objective.requirements
    files = [path for path in (start.path, start.guide) if path and path.exists()]  # a parent in memory has none
    return Header(
        kind=requirements.kind,
        backbone=dict(start.backbone),
        preconditioning=asdict(model.preconditioning),
        data={
            "name": options.data["name"],
            "shape": list(dataset.shape),
            "classes": list(dataset.classes),
            "notice": dataset.notice,
        },
        num_classes=num_classes,
        sigma_min=max(options.sigma_min, requirements.lowest_sigma),
        sigma_max=options.sigma_max,
        sigmas=start.objective.sampling_sigmas,
        method=f"{options.command} {vars(options)['method']['name']}",
        options=plain(asdict(kept_options(options))),
        parents=[parent_record(Path(os.path.abspath(path))) for path in files],
        licence=start.parent.header.licence if start.parent else "",
        versions={"cmtool": cmtool.__version__, "torch": torch.__version__},
        average={"ema": str(parse_ema_specs(options.ema)[0])},
    )


def plain(value: Any) -> Any:
    """Options as JSON holds them."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return str(value) if isinstance(value, Path) else value
