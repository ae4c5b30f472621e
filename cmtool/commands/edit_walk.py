"""From the options of an edit to the walk that makes it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from cmtool import registry
from cmtool.commands.plan import ODE_STEPS, check_levels
from cmtool.core.coordinates import process_of
from cmtool.core.denoiser import Preconditioning
from cmtool.core.grids import karras, to_zero
from cmtool.core.operators import Operator
from cmtool.core.spacings import grid, usual
from cmtool.core.walks import AlongODE, Jumps, Reverse
from cmtool.errors import UsageError
from cmtool.files.header import Header
from cmtool.settings import EditOptions

__all__ = ["edit_walk", "jump_levels"]


def edit_walk(operator: Operator, header: Header, options: EditOptions) -> Jumps | AlongODE | Reverse:
    """Jumps of a consistency model; for a score model, the sampler asked for, held to what is known.

    UsageError for levels the model never saw, and for several variants of what has but one answer.
    """
    check_levels(header, options.steps if options.levels else None, options.levels)
    walk = (_downhill if header.kind == "score" else _jumps)(operator, header, options)
    check_levels(header, None, [level for level in walk.levels.tolist() if level])
    if options.variants > 1 and operator.noisy and (walk.evaluations == 1 or isinstance(walk, AlongODE)):
        raise UsageError(
            f"{options.operator.name} adds no noise here, so that all variants would be the same",
            "leave out --variants" if header.kind == "score" else "leave out --variants, or add --steps 2",
        )
    return walk


def _jumps(operator: Operator, header: Header, options: EditOptions) -> Jumps:
    if options.solver:
        raise UsageError(
            "--solver is about the walk of a score model, and this is a consistency model",
            f"leave it out: cmtool edit {options.operator.name} --steps {options.steps or 2}",
        )
    levels = jump_levels(operator, header, options.steps, options.levels)
    return Jumps(levels, header.preconditioning["sigma_min"], clip=True)


def jump_levels(
    operator: Operator, header: Header, steps: int | None = None, levels: Sequence[float] | None = None
) -> Tensor:
    """Given levels, else ``steps`` of the Karras grid from where the task starts to where it ends well."""
    if levels:
        return torch.tensor(list(levels), dtype=torch.float64)
    first = _first(operator, header)
    return karras(steps or operator.steps, max(min(operator.floor, first / 2), header.sigma_min), first)


def _first(operator: Operator, header: Header) -> float:
    """The level that the task asks for, no higher than the model knows where the task has a range to choose from."""
    if operator.level is None:
        return header.sigma_max
    return min(operator.level, header.sigma_max) if operator.keeps else operator.level


def _downhill(operator: Operator, header: Header, options: EditOptions) -> AlongODE | Reverse:
    first = _first(operator, header)
    if operator.noisy and not (options.solver or options.steps or options.levels):  # the mean of all clean images
        return AlongODE(to_zero(torch.tensor([first], dtype=torch.float64)), registry.build("solvers", "euler"))
    chosen = registry.build("solvers", options.solver or "predictor-corrector")
    downward = hasattr(chosen, "down")
    process = process_of(Preconditioning(**header.preconditioning), header.sigma_min, header.sigma_max)
    spaced = usual(process) if downward else "karras"
    steps = options.steps or (chosen.usual if downward else 2 if chosen.evaluations is None else ODE_STEPS)
    levels = grid(spaced, steps + downward, header.sigma_min, first, process)
    if options.levels:
        levels = torch.tensor(options.levels, dtype=torch.float64)
    walk = chosen.down(process, process.time(levels)) if downward else AlongODE(to_zero(levels), chosen)
    if not isinstance(walk, AlongODE | Reverse):
        raise UsageError(
            "this sampler cannot be told what is known", "try --solver predictor-corrector or --solver heun"
        )
    return walk
