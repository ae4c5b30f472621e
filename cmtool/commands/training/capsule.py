"""The step at which a run diverged, put into a folder from which one command computes it again.

RUN/capsule/config.yaml         the options of the run
RUN/capsule/state.safetensors   weights before the step, and which images it saw with which draws; sealed
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cmtool.commands.console import Console
from cmtool.commands.training.numerics import changed_numerics, numerics
from cmtool.commands.training.resume import check_parents
from cmtool.errors import BadFile, Diverged, report_damage
from cmtool.files.atomic import make_folder, write_bytes
from cmtool.files.sealed import load_state, save_state
from cmtool.options.load import dump_options
from cmtool.options.stored_run import CONFIG
from cmtool.pipelines.inputs import dataset_facts, kept_options, open_dataset
from cmtool.pipelines.training_job import TrainingJob, build_training
from cmtool.settings import TrainOptions
from cmtool.training.devices import choose_device, precision
from cmtool.training.gradients import BatchGradient, LoopConfig, exact_gradients
from cmtool.training.loop import InTurn
from cmtool.training.state import State, pack

__all__ = ["CAPSULE", "reproduce", "write_capsule"]

CAPSULE = "capsule"
PARTS = ("model.", "objective.")  # what a gradient depends on, of a training state


def write_capsule(options: TrainOptions, job: TrainingJob, tensors: Mapping[str, Tensor], folder: Path) -> Path:
    """Put the last step of a run, which has left the weights as they were, into ``folder``; ``tensors`` are whole."""
    place = make_folder(folder / CAPSULE)
    kept = {name: tensor for name, tensor in tensors.items() if name.startswith(PARTS)}
    scalars = pack(job.state)[1] | {"images": job.state.images - options.batch}
    scalars |= {"parents": job.header.parents, "numerics": numerics(options, job)}
    save_state(place / "state.safetensors", kept, scalars)
    write_bytes(place / CONFIG, dump_options(kept_options(options)).encode())
    return place


def reproduce(options: TrainOptions, console: Console) -> None:
    """Compute the step of a capsule again, and tell the loss, the norm and where it breaks; Diverged if it does."""
    place = options.reproduce or Path()
    tensors, scalars = load_state(place / "state.safetensors")
    device, dataset = choose_device(options.device), open_dataset(options.data, console.say)
    console.say(f"data: {dataset_facts(options.data['name'], dataset, options.conditional)}")
    job = build_training(options, device, dataset)
    _restore(job, place, tensors, scalars)
    if changed := changed_numerics(scalars.get("numerics", {}), numerics(options, job)):
        console.warn(f"the step was made with other numerics, {'; '.join(changed)}")
    with _first_broken(job.state.model) as broken:
        found = _gradient(options, job)
    norm = nn.utils.get_total_norm(found.gradients)
    names = _names(job.state)
    parameters = [names[id(p)] for p, g in zip(found.parameters, found.gradients, strict=True) if not _finite(g)]
    document = {
        "command": options.command,
        "capsule": str(place),
        "images": job.state.images,
        "draws": job.state.draws,
        "loss": float(found.loss),
        "gradient": float(norm),
        "finite": _finite(norm),
        "layer": broken[0] if broken else None,
        "parameter": parameters[0] if parameters else None,
        "parameters": len(parameters),
    }
    console.result(document, "\n".join(f"{key}: {value}" for key, value in document.items()))
    if not _finite(norm):
        where = f"the output of {broken[0]} is the first" if broken else "all outputs of the network are finite"
        raise Diverged(f"the gradient of the step after {job.state.images:,} images is not finite: {where}")
    console.say("the gradient is finite here")


def _restore(job: TrainingJob, place: Path, tensors: dict[str, Tensor], scalars: dict[str, Any]) -> None:
    """The weights and the clock of the capsule; BadFile for one of another network."""
    check_parents(job, place, scalars.get("parents", []))
    model, own = ({k.removeprefix(p): v for k, v in tensors.items() if k.startswith(p)} for p in PARTS)
    images, draws = scalars.get("images"), scalars.get("draws")
    if not (isinstance(images, int) and isinstance(draws, int) and images >= 0 <= draws):
        raise BadFile(f"{place} is no capsule: it does not say which images its step has seen")
    with report_damage(place, "does not fit the options beside it", "copy the whole folder"):
        job.state.model.load_state_dict(model)
        job.state.objective.load_state_dict(job.state.objective.state_dict() | own)
    job.state.images, job.state.draws, job.batches.draws = images, draws, draws


def _gradient(options: TrainOptions, job: TrainingJob) -> BatchGradient:
    state, micro = job.state, numerics(options, job)["micro_batch"]
    where = next(state.model.parameters()).device
    config = LoopConfig(seed=options.seed, micro=micro, autocast=precision(options.precision, where))
    feed, progress = InTurn(job.batches.since(state.images)), state.images / options.images
    state.model.train()
    with exact_gradients(state, feed, config, progress) as engine:
        engine.prepare(micro, progress)
        return engine.reduce()


@contextmanager
def _first_broken(model: nn.Module) -> Iterator[list[str]]:
    """Inside the block the names of layers whose output is not finite are listed, the innermost and first one first."""
    found: list[str] = []

    def look(name: str, output: Any) -> None:
        if isinstance(output, Tensor) and not _finite(output):
            found.append(name)

    hooks = [
        layer.register_forward_hook(lambda layer, given, output, name=name: look(name, output))
        for name, layer in model.named_modules()
        if name
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor.detach()).all())


def _names(state: State) -> dict[int, str]:
    own = {id(p): f"objective.{name}" for name, p in state.objective.named_parameters()}
    return own | {id(p): name for name, p in state.model.named_parameters()}
