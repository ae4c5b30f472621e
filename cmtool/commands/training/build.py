"""From the options of a training command to the parts it trains."""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

import cmtool
from cmtool.bundled import bundled
from cmtool.class_names import known_names, match_classes, some_names
from cmtool.core.denoiser import Denoiser, Preconditioning
from cmtool.datasets.views import RelabelledDataset
from cmtool.errors import UsageError
from cmtool.files.header import Header
from cmtool.files.model_files import open_any, parent_record
from cmtool.files.model_format import LoadedModel
from cmtool.objectives.objective import Objective
from cmtool.options import registry
from cmtool.options.ema_spec import EMASpec, parse_ema_specs
from cmtool.pipelines.guidance import apply_guidance
from cmtool.pipelines.inputs import anchor_paths, checkpoint_path, open_dataset
from cmtool.settings import DistillOptions, TrainCtOptions, TrainOptions, TrainScoreOptions
from cmtool.training.augment import Augment
from cmtool.training.batches import Batches
from cmtool.training.ema import EMA, RULES
from cmtool.training.loop import State
from cmtool.training.optimizers import build_optimizer

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
    backbone: dict[str, Any]
    preconditioning: Preconditioning
    parent: LoadedModel[Denoiser] | None = None
    path: Path | None = None
    guide: Path | None = None
    augment: Augment | None = None


def build_training(options: TrainOptions, device: torch.device, dataset: Any = None) -> TrainingJob:
    """Data (those of the options, where they are not open yet), objective, network, optimiser and average."""
    dataset, remarks = open_dataset(options.data) if dataset is None else dataset, ()
    conditional = len(dataset.classes) if options.conditional else 0
    start = STARTS[type(options)](options)
    if start.augment and len(dataset.shape) != 3:
        raise UsageError("--augment changes images, and these data are points", "leave out --augment")
    if start.parent is not None:
        dataset, remarks = _fitted(start.parent.header, dataset, options.conditional, start.path)
        conditional = start.parent.header.num_classes

    torch.manual_seed(options.seed)
    net = registry.build("backbones", start.backbone, tuple(dataset.shape), conditional)
    if start.parent is not None:
        _inherit(net, start, conditional)
    boundary = start.objective.sigma_min if start.objective.kind == "consistency" else 0.0
    preconditioning = replace(start.preconditioning, sigma_min=boundary, jumps=start.objective.hints > 0)
    model = Denoiser(net, preconditioning).to(device)
    objective = start.objective.to(device)
    objective.begin(model)

    learner = build_optimizer(options.optimizer, [*model.parameters(), *objective.trained()], options.lr)
    first, *others = parse_ema_specs(options.ema)
    state = State(model, objective, learner, _ema(model, first))
    state.others = {track.name: _ema(model, track) for track in others}
    batches = Batches(
        dataset,
        options.batch,
        options.seed,
        options.flip,
        conditional > 0,
        start.augment,
        objective.probes,
        options.label_dropout,
        objective.others,
        objective.sharing,
    )
    return TrainingJob(state, batches, _header(options, start, dataset, conditional, model), dataset, remarks)


def _ema(model: Denoiser, track: EMASpec) -> EMA:
    return EMA(model, rule=RULES[track.form](track.value))


def _score(options: TrainScoreOptions) -> ModelStart:
    objective = registry.build("train_score", options.method, **_levels(options, options.sigma_data))
    preconditioning = objective.preconditioning or Preconditioning(options.sigma_data)
    if not options.augment:
        return ModelStart(objective, _jumping(options.backbone, objective), preconditioning)
    if objective.hints:
        raise UsageError(
            f"the method '{options.method['name']}' tells the network where to jump, and --augment how images changed:"
            " it can be told one of the two",
            "leave out --augment",
        )
    augment = Augment.edm(options.augment)
    why = "of augmentation, which would leak into its samples"
    told = _check_conditioning(options.backbone, augment.hints, why, "leave out --augment, or use --backbone unet")
    return ModelStart(objective, told, preconditioning, augment=augment)


def _check_conditioning(backbone: dict[str, Any], hints: int, what: str, hint: str) -> dict[str, Any]:
    """The backbone that takes so many hints; UsageError for one that cannot."""
    if "augment" not in registry.options(registry.get("backbones", backbone["name"])):
        raise UsageError(f"the network '{backbone['name']}' cannot be told {what}", hint)
    return {**backbone, "augment": hints}


def _jumping(backbone: dict[str, Any], objective: Objective) -> dict[str, Any]:
    """The backbone that takes the hints of the objective, if it has any."""
    if not objective.hints:
        return backbone
    why = "where to jump, which this method needs"
    return _check_conditioning(
        backbone, objective.hints, why, "use a network with an option 'augment': --backbone unet"
    )


def _ct(options: TrainCtOptions) -> ModelStart:
    path = checkpoint_path(options.init) if options.init else None
    parent = open_any(path) if path else None
    sigma_data = parent.model.preconditioning.sigma_data if parent else options.sigma_data
    objective = registry.build("train_ct", options.method, **_levels(options, sigma_data))
    _starts(objective, options.method["name"], parent, path)
    if parent is None:
        preconditioning = objective.preconditioning or Preconditioning(sigma_data)
        return ModelStart(objective, _jumping(options.backbone, objective), preconditioning)
    backbone = _jumping(parent.header.backbone, objective)
    return ModelStart(objective, backbone, parent.model.preconditioning, parent, path)


def _starts(objective: Objective, method: str, parent: LoadedModel[Denoiser] | None, path: Path | None) -> None:
    """UsageError for a method that goes on from a kind of model that was not given."""
    kind = parent.header.kind if parent else None
    if objective.starts_from in (None, kind):
        return
    found = f"{path} is a {kind} model" if parent else "there is no --init"
    raise UsageError(
        f"'{method}' goes on from a {objective.starts_from} model, and {found}",
        f"train one first, with 'cmtool train-ct --method ect', then: --method {method} --init RUN",
    )


def _distill(options: DistillOptions) -> ModelStart:
    path = checkpoint_path(options.teacher or bundled("score"))
    teacher = open_any(path)
    teacher.model.requires_grad_(False)
    if teacher.header.kind != "score":
        raise UsageError(
            f"{path} is a consistency model, and distill learns from a score model",
            "train one with 'cmtool train-score', or go on training this one with 'cmtool train-ct --init'",
        )
    sigma_data = teacher.model.preconditioning.sigma_data
    followed = apply_guidance(teacher, options).model
    objective = registry.build("distill", options.method, followed, **_levels(options, sigma_data))
    guide = checkpoint_path(options.guidance_model) if options.guidance_model else None
    backbone = _jumping(teacher.header.backbone, objective)
    return ModelStart(objective, backbone, teacher.model.preconditioning, teacher, path, guide)


STARTS: dict[type, Callable[[Any], ModelStart]] = {
    TrainScoreOptions: _score,
    TrainCtOptions: _ct,
    DistillOptions: _distill,
}


def _levels(options: TrainOptions, sigma_data: float) -> dict[str, float]:
    return {"sigma_min": options.sigma_min, "sigma_max": options.sigma_max, "sigma_data": sigma_data}


def _fitted(header: Header, dataset: Any, conditional: bool, path: Path | None) -> tuple[Any, Sequence[str]]:
    """The data under the class numbers of the parent, and what is to be said of that.

    UsageError for data of another shape than what the parent was trained on, or with a class that it does not know.
    """
    if header.shape != tuple(dataset.shape):
        theirs, ours = ("x".join(map(str, shape)) for shape in (header.shape, dataset.shape))
        hint = f"the size of data is often a choice: --set data.size={header.shape[-1]}"
        raise UsageError(f"{path} makes {theirs} images, and the data are {ours}", hint)
    if not header.num_classes:
        return dataset, [f"{path} knows no classes: the labels are not used"] if conditional and dataset.classes else []
    if not (conditional and dataset.classes):
        raise UsageError(
            f"{path} knows {header.num_classes} classes, and the data have none",
            "give --data a folder with a folder for each class, and leave --no-conditional out",
        )
    theirs = known_names(header.classes, header.num_classes)
    numbers = match_classes(dataset.classes, theirs, "the data", str(path))
    if tuple(dataset.classes) == theirs:
        return dataset, []
    pairs = [f"{name} is {theirs[k]}, class {k}" for name, k in zip(dataset.classes, numbers, strict=True)]
    return RelabelledDataset(dataset, numbers, theirs), [f"the classes of the data in {path}: {some_names(pairs, 10)}"]


def _inherit(net: torch.nn.Module, start: ModelStart, conditional: int) -> None:
    """The weights of the parent; the hints of a jump are not those of augmentation, and are learnt anew."""
    assert start.parent is not None
    state, hints = start.parent.model.net.state_dict(), start.objective.hints
    if hints and not start.parent.model.preconditioning.jumps:
        with torch.device("meta"):
            deaf = registry.build("backbones", {**start.backbone, "augment": 0}, start.parent.header.shape, conditional)
        kept = deaf.state_dict().keys()
        state = {key: state[key] if key in kept else value for key, value in net.state_dict().items()}
    try:
        net.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise UsageError(f"the network of {start.path} does not fit this one: {reason}") from error


def _header(options: TrainOptions, start: ModelStart, dataset: Any, conditional: int, model: Denoiser) -> Header:
    return Header(
        kind=start.objective.kind,
        backbone=dict(start.backbone),
        preconditioning=asdict(model.preconditioning),
        data={
            "name": options.data["name"],
            "shape": list(dataset.shape),
            "classes": list(dataset.classes),
            "notice": dataset.notice,
        },
        num_classes=conditional,
        sigma_min=max(options.sigma_min, start.objective.lowest),
        sigma_max=options.sigma_max,
        sigmas=start.objective.sampling,
        method=f"{options.command} {vars(options)['method']['name']}",
        options=plain(asdict(anchor_paths(replace(options, run_dir=None, resume=None, dry_run=False)))),
        parents=[parent_record(Path(os.path.abspath(path))) for path in (start.path, start.guide) if path],
        licence=start.parent.header.licence if start.parent else "",
        versions={"cmtool": cmtool.__version__, "torch": torch.__version__},
        average={"track": str(parse_ema_specs(options.ema)[0])},
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
