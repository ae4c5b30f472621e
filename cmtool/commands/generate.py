"""Images of a model: the one walk behind ``sample``, ``fid`` and the pictures drawn during training."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cmtool import registry
from cmtool.core.denoiser import Denoise, Denoiser
from cmtool.core.grids import intermediate, karras, to_zero
from cmtool.core.noise import Blend, Noise
from cmtool.core.pixels import to_pixels
from cmtool.core.samplers import Counted, last, multistep, probability_flow, start
from cmtool.core.solvers import Solver
from cmtool.core.steady import steady
from cmtool.errors import UsageError
from cmtool.files.header import Header
from cmtool.files.pictures import grid, scatter

__all__ = ["Plan", "check_levels", "draw", "in_batches", "labels_of", "plan", "sheet", "walk"]

SCORE_STEPS = 18  # Heun, 35 evaluations: the CIFAR-10 setting of Karras et al. 2022


@dataclass
class Plan:
    """The levels to visit; with a solver along the ODE, without one by jumps of a consistency model.

    ``made`` counts the network evaluations of all images drawn so far.
    """

    levels: Tensor
    solver: Solver | None = None
    made: int = 0

    @property
    def evaluations(self) -> int | None:
        """Network evaluations for each image; None where the solver decides as it goes."""
        if self.solver is None:
            return len(self.levels)
        each = self.solver.evaluations
        return None if each is None else (len(self.levels) - 2) * each + 1


def plan(
    header: Header,
    steps: int | None = None,
    levels: Sequence[float] | None = None,
    solver: Mapping[str, Any] | None = None,
) -> Plan:
    """How to sample a model of this kind.

    ``steps`` counts network evaluations of a consistency model and solver steps of a score model, whose ``solver`` is
    Heun's when none is named. A solver that chooses its own steps has only the lowest level between noise and image.
    """
    check_levels(header, steps, levels)
    if header.kind == "score" and header.levels and not (levels or solver):
        if steps not in (None, len(header.levels)):
            raise UsageError(
                f"this model takes {len(header.levels)} of Euler's steps, as it was distilled to, and not {steps}",
                "leave out --steps, or name the --levels or the --solver to try it with",
            )
        return Plan(to_zero(_tensor(header.levels)), registry.build("solvers", "euler"))
    if header.kind == "score":
        chosen = registry.build("solvers", solver or "heun")
        steps = steps or (2 if chosen.evaluations is None else SCORE_STEPS)
        visited = _tensor(levels) if levels else karras(steps, header.sigma_min, header.sigma_max)
        return Plan(to_zero(visited), chosen)
    if solver:
        raise UsageError(
            "--solver walks the ODE of a score model, and this is a consistency model, which jumps",
            f"leave it out; more steps are more jumps: --steps {steps or 2}",
        )
    if levels:
        return Plan(_tensor(levels))
    steps = steps or 1
    if len(header.levels) == steps - 1:
        return Plan(_tensor([header.sigma_max, *header.levels]))
    return Plan(intermediate(steps, header.sigma_min, header.sigma_max))


def check_levels(header: Header, steps: int | None, levels: Sequence[float] | None) -> None:
    """UsageError for levels that the model never saw, or that are not as many as ``steps``."""
    if not levels:
        return
    if steps and len(levels) != steps:
        raise UsageError(f"--steps {steps} and {len(levels)} --levels contradict each other", "give one of them")
    if levels[0] > header.sigma_max or levels[-1] < header.sigma_min:
        known = f"{header.sigma_min:g} to {header.sigma_max:g}"
        raise UsageError(f"the model knows noise levels from {known}, not {', '.join(f'{x:g}' for x in levels)}")


def _tensor(levels: Sequence[float]) -> Tensor:
    return torch.tensor(list(levels), dtype=torch.float64)


def labels_of(seeds: Sequence[int], classes: int, klass: int | None = None) -> Tensor | None:
    """A label for every seed: the class asked for, else ``seed mod classes``, so that any run of seeds is balanced."""
    if not classes:
        return None
    return torch.tensor([klass if klass is not None else seed % classes for seed in seeds], dtype=torch.long)


def walk(
    model: Denoise, plan: Plan, x: Tensor, noise: Noise | Blend, labels: Tensor | None, sigma_min: float
) -> Iterator[Tensor]:
    """From x at the plan's first level to images."""
    if plan.solver is not None:
        return probability_flow(model, x, plan.levels, plan.solver, labels, noise)
    return multistep(model, x, plan.levels, noise, labels, sigma_min=sigma_min)


def draw(model: Denoiser, plan: Plan, noise: Noise | Blend, labels: Tensor | None, cores: int | None = None) -> Tensor:
    """The images of some noise, uint8 [B, C, H, W] on the CPU; points stay float32 [B, D].

    ``cores`` of the processor work side by side, as many as torch uses when it is None; no bit depends on it.
    """
    device, shape = next(model.parameters()).device, model.header.shape
    x = start(noise, shape, plan.levels[0]).to(device)
    labels = None if labels is None else labels.to(device)
    with steady(model, piece(shape, device), threads(device, cores)) as steadied:
        counted = Counted(steadied)
        x = last(walk(counted, plan, x, noise, labels, model.preconditioning.sigma_min)).cpu()
    plan.made += counted.calls * len(noise)
    return to_pixels(x) if x.ndim == 4 else x.float()


def piece(shape: tuple[int, ...], device: torch.device) -> int:
    """Images that one call of the network sees, whatever the batch: few enough for a core's cache, or to fill a GPU."""
    if len(shape) == 1:
        return 1024
    pixels, most = (1 << 13, 16) if device.type == "cpu" else (1 << 18, 256)
    return max(1, min(pixels // math.prod(shape[1:]), most))


def threads(device: torch.device, cores: int | None = None) -> int:
    """Pieces at a time."""
    return cores or torch.get_num_threads() if device.type == "cpu" else 1


def in_batches(
    model: Denoiser, plan: Plan, seeds: Sequence[int], batch: int, klass: int | None = None
) -> Iterator[tuple[list[int], Tensor, Tensor | None]]:
    """Seeds, images and labels, ``batch`` or a few more at a time; each image depends on its own seed alone."""
    device = next(model.parameters()).device
    whole = piece(model.header.shape, device) * threads(device)
    batch = math.ceil(batch / whole) * whole  # less would leave cores idle and save no memory
    for i in range(0, len(seeds), batch):
        some = list(seeds[i : i + batch])
        labels = labels_of(some, model.header.conditional, klass)
        yield some, draw(model, plan, Noise(some), labels), labels


def sheet(images: Tensor, columns: int) -> np.ndarray:
    """Images side by side, or points as a scatter plot: uint8 [C, H, W]."""
    return grid(images.numpy(), columns) if images.ndim == 4 else scatter(images.numpy())
