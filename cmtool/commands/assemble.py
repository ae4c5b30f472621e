"""From the options of a training command to the parts it trains."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

import cmtool
from cmtool import registry
from cmtool.commands.data import open_dataset
from cmtool.commands.guide import guided
from cmtool.commands.models import checkpoint
from cmtool.core.denoiser import Denoiser, Preconditioning
from cmtool.errors import UsageError
from cmtool.files.checkpoint import digest
from cmtool.files.header import Header
from cmtool.files.opening import open_any
from cmtool.objectives.objective import Objective
from cmtool.settings import DistillOptions, TrainCtOptions, TrainOptions, TrainScoreOptions
from cmtool.training.augment import Augment
from cmtool.training.batches import Batches
from cmtool.training.ema import Average
from cmtool.training.loop import State
from cmtool.training.optimisers import optimiser

__all__ = ["Job", "assemble"]


@dataclass
class Job:
    """What is trained, on what, and what its checkpoints will say about it."""

    state: State
    batches: Batches
    header: Header
    dataset: Any


@dataclass(frozen=True)
class Start:
    """A network before training: its spec, and the model whose weights it starts from."""

    objective: Objective
    backbone: dict[str, Any]
    preconditioning: Preconditioning
    parent: Denoiser | None = None
    path: Path | None = None
    guide: Path | None = None
    augment: Augment | None = None


def assemble(options: TrainOptions, device: torch.device) -> Job:
    """Data, objective, network, optimiser and average of a command."""
    dataset = open_dataset(options.data)
    conditional = len(dataset.classes) if options.conditional else 0
    start = STARTS[type(options)](options)
    if start.parent is not None:
        conditional = _fits(start.parent.header, dataset, conditional, start.path)

    torch.manual_seed(options.seed)
    net = registry.build("backbones", start.backbone, tuple(dataset.shape), conditional)
    if start.parent is not None:
        _inherit(net, start.parent.net, start.path)
    boundary = start.objective.sigma_min if start.objective.kind == "consistency" else 0.0
    model = Denoiser(net, replace(start.preconditioning, sigma_min=boundary)).to(device)
    objective = start.objective.to(device)
    objective.begin(model)

    learner = optimiser(options.optimizer, [*model.parameters(), *objective.trained()], options.lr)
    state = State(model, objective, learner, Average(model, options.ema))
    batches = Batches(
        dataset,
        options.batch,
        options.seed,
        options.flip,
        conditional > 0,
        start.augment,
        objective.probes,
        options.drop_labels,
    )
    return Job(state, batches, _header(options, start, dataset, conditional, model), dataset)


def _score(options: TrainScoreOptions) -> Start:
    objective = registry.build("train_score", options.method, **_levels(options, options.sigma_data))
    preconditioning = objective.preconditioning or Preconditioning(options.sigma_data)
    if not options.augment:
        return Start(objective, options.backbone, preconditioning)
    augment = Augment.edm(options.augment)
    return Start(objective, _told(options.backbone, augment), preconditioning, augment=augment)


def _told(backbone: dict[str, Any], augment: Augment) -> dict[str, Any]:
    """The backbone that takes the hints; UsageError for one that cannot, whose samples would look augmented."""
    if "augment" not in registry.options(registry.get("backbones", backbone["name"])):
        raise UsageError(
            f"the network '{backbone['name']}' cannot be told of augmentation, which would leak into its samples",
            "leave out --augment, or use --backbone unet",
        )
    return {**backbone, "augment": augment.hints}


def _ct(options: TrainCtOptions) -> Start:
    path = checkpoint(options.init) if options.init else None
    parent = open_any(path) if path else None
    sigma_data = parent.preconditioning.sigma_data if parent else options.sigma_data
    objective = registry.build("train_ct", options.method, **_levels(options, sigma_data))
    if parent is None:
        return Start(objective, options.backbone, objective.preconditioning or Preconditioning(sigma_data))
    return Start(objective, parent.header.backbone, parent.preconditioning, parent, path)


def _distill(options: DistillOptions) -> Start:
    path = checkpoint(options.teacher)
    teacher = open_any(path).requires_grad_(False)
    if teacher.header.kind != "score":
        raise UsageError(
            f"{path} is a consistency model, and distill learns from a score model",
            "train one with 'cmtool train-score', or go on training this one with 'cmtool train-ct --init'",
        )
    sigma_data = teacher.preconditioning.sigma_data
    followed = guided(teacher, path, options)
    objective = registry.build("distill", options.method, followed, **_levels(options, sigma_data))
    guide = checkpoint(options.guide) if options.guide else None
    return Start(objective, teacher.header.backbone, teacher.preconditioning, teacher, path, guide)


STARTS: dict[type, Callable[[Any], Start]] = {
    TrainScoreOptions: _score,
    TrainCtOptions: _ct,
    DistillOptions: _distill,
}


def _levels(options: TrainOptions, sigma_data: float) -> dict[str, float]:
    return {"sigma_min": options.sigma_min, "sigma_max": options.sigma_max, "sigma_data": sigma_data}


def _fits(header: Header, dataset: Any, conditional: int, path: Path | None) -> int:
    """The data must be what the parent was trained on, in shape and number of classes."""
    if header.shape != tuple(dataset.shape):
        theirs, ours = ("x".join(map(str, shape)) for shape in (header.shape, dataset.shape))
        hint = f"the size of data is often a choice: --set data.size={header.shape[-1]}"
        raise UsageError(f"{path} makes {theirs} images, and the data are {ours}", hint)
    if header.conditional and header.conditional != conditional:
        raise UsageError(f"{path} knows {header.conditional} classes, and the data have {conditional or 'none'}")
    return header.conditional


def _inherit(net: torch.nn.Module, parent: torch.nn.Module, path: Path | None) -> None:
    try:
        net.load_state_dict(parent.state_dict())
    except RuntimeError as error:
        raise UsageError(
            f"the network of {path} does not fit this one: {str(error).splitlines()[-1].strip()}"
        ) from error


def _header(options: TrainOptions, start: Start, dataset: Any, conditional: int, model: Denoiser) -> Header:
    parents = [{"path": str(path), "sha256": digest(path)} for path in (start.path, start.guide) if path]
    return Header(
        kind=start.objective.kind,
        backbone=dict(start.backbone),
        preconditioning=asdict(model.preconditioning),
        data={
            "name": options.data["name"],
            "shape": list(dataset.shape),
            "classes": list(dataset.classes),
            "notice": getattr(dataset, "notice", ""),
        },
        conditional=conditional,
        sigma_min=options.sigma_min,
        sigma_max=options.sigma_max,
        method=f"{options.command} {vars(options)['method']['name']}",
        options=plain(asdict(replace(options, run=None, resume=None, dry_run=False))),
        parents=parents,
        licence=start.parent.header.licence if start.parent else "",
        versions={"cmtool": cmtool.__version__, "torch": torch.__version__},
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
