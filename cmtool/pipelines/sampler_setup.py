"""From the options of sampling to a walk that suits the model."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cmtool.core.denoiser import Preconditioning
from cmtool.core.flow_map import GammaSampler
from cmtool.core.named_processes import build_process, process_of
from cmtool.core.named_schedules import default_schedule, sigma_schedule
from cmtool.core.process import Process
from cmtool.core.sampling.samplers import MultistepSampler, ODESampler, Sampler
from cmtool.core.sigma_schedules import append_zero, karras, multistep_schedule
from cmtool.core.solvers.runge_kutta import in_native_time
from cmtool.errors import UsageError
from cmtool.files.header import Header
from cmtool.options import registry
from cmtool.options.types import Spec
from cmtool.settings.sampling import WalkOptions

__all__ = ["SamplerSetup", "check_sigmas", "multistep_sampler", "recommended_sigmas", "set_up_sampler"]

ODE_STEPS = 18  # Heun, 35 evaluations: the CIFAR-10 setting of Karras et al. 2022
OPENAI = (40, 151, 201)  # levels of the grids that OpenAI's published commands count on
CONSISTENCY_ONLY = ("ts", "convention")
SCORE_ONLY = ("solver", "schedule", "process")


@dataclass
class SamplerSetup:
    """The walk that every image takes; ``nfe_used`` counts the network evaluations of all images drawn so far."""

    sampler: Sampler
    nfe_used: int = 0
    grid: int | None = None  # how many levels has the Karras grid that ``--ts`` counts on

    @property
    def sigmas(self) -> Tensor:
        return self.sampler.sigmas

    @property
    def nfe(self) -> int | None:
        """Network evaluations for each image; None where the solver decides as it goes."""
        return self.sampler.nfe

    @property
    def told(self) -> str:
        """The levels in words, and of which grid they are where they were given by number."""
        levels = ", ".join(f"{level:.4g}" for level in self.sigmas)
        return f"{levels}, on the Karras grid of {self.grid} levels" if self.grid else levels


def set_up_sampler(header: Header, options: WalkOptions | None = None) -> SamplerSetup:
    """How to sample a model of this kind.

    ``steps`` counts the evaluations of a consistency model and the steps of a score model's solver. UsageError for
    options of the other kind, and for levels that the model never saw.
    """
    options = options or WalkOptions()
    check_sigmas(header, None if options.ts else options.steps, options.sigmas)
    if options.gamma is not None:
        _check_gamma(header, options)
    if header.kind == "score":
        _refuse(options, CONSISTENCY_ONLY, "jumps of a consistency model", "and this is a score model", "--solver heun")
        if header.sigmas and not any(getattr(options, key) is not None for key in ("sigmas", *SCORE_ONLY)):
            return SamplerSetup(_distilled_sampler(header, options.steps))
        return SamplerSetup(_score_sampler(header, options))
    steps = options.steps or 2
    _refuse(options, SCORE_ONLY, "the walk of a score model", "and this is a consistency model", f"--steps {steps}")
    return SamplerSetup(
        _consistency_sampler(header, options), grid=_counted(options.ts, options.steps) if options.ts else None
    )


def _refuse(options: WalkOptions, keys: Sequence[str], what: str, but: str, instead: str) -> None:
    given = [f"--{key}" for key in keys if getattr(options, key) is not None]
    if given:
        raise UsageError(f"{given[0]} is about {what}, {but}", f"leave it out: cmtool {options.command} {instead}")


def _distilled_sampler(header: Header, steps: int | None) -> Sampler:
    """The few steps of Euler's that a score model was distilled to."""
    own = len(header.sigmas)
    if steps not in (None, own):
        raise UsageError(
            f"this model takes the {own} steps that it was distilled to, not {steps}",
            "leave out --steps, or name the --sigmas or the --solver to try it with",
        )
    return ODESampler(append_zero(_tensor(header.sigmas)), registry.build("solvers", "euler"))


def _score_sampler(header: Header, options: WalkOptions) -> Sampler:
    """Along the ODE, or down the reverse-time equation, of a score model."""
    chosen = registry.build("solvers", options.solver or "heun")
    process = _process(header, options.process)
    own = process or process_of(_preconditioning(header), *_sigma_range(header))
    if hasattr(chosen, "build_sampler"):
        levels = _visited_sigmas(
            header, options, default_schedule(own), own, (options.steps or chosen.default_steps) + 1
        )
        return chosen.build_sampler(own, own.time(levels))
    steps = options.steps or (2 if chosen.nfe_per_step is None else ODE_STEPS)
    levels = _visited_sigmas(header, options, "karras", own, steps)
    return ODESampler(append_zero(levels), in_native_time(chosen, process) if process else chosen)


def _visited_sigmas(header: Header, options: WalkOptions, spaced: str, process: Process, n: int) -> Tensor:
    """The levels asked for, or ``n`` of the spacing asked for, ``spaced`` where none was."""
    if options.sigmas:
        return _tensor(options.sigmas)
    spec = {"name": spaced, **(options.schedule or {})}
    levels = sigma_schedule(spec, n, *_sigma_range(header), process, _preconditioning(header))
    if {"sigma_min", "sigma_max"} & spec.keys():
        check_sigmas(header, None, levels.tolist())
    return levels


def _process(header: Header, spec: Spec | None) -> Process | None:
    return build_process(spec, *_sigma_range(header), _preconditioning(header)) if spec else None


def _preconditioning(header: Header) -> Preconditioning:
    return Preconditioning(**header.preconditioning)


def _sigma_range(header: Header) -> tuple[float, float]:
    return header.sigma_min, header.sigma_max


def _check_gamma(header: Header, options: WalkOptions) -> None:
    """UsageError for --gamma with a model that does not jump to any level it is told."""
    if not header.preconditioning.get("jumps"):
        what = "jumps to images alone" if header.kind == "consistency" else "is a score model"
        raise UsageError(
            f"--gamma is for a model that jumps to any level, and this one {what}",
            "leave it out, or train one that does: cmtool distill --method ctm",
        )
    if options.convention:
        raise UsageError("--gamma is a convention of its own and goes with no --convention", "give one of them")


def _consistency_sampler(header: Header, options: WalkOptions) -> Sampler:
    """Jumps of a consistency model, under the convention that was asked for."""
    if options.gamma is not None:
        return GammaSampler(_multistep_sigmas(header, options), options.gamma)
    return multistep_sampler(header, _multistep_sigmas(header, options), options.convention)


def multistep_sampler(header: Header, levels: Tensor, convention: str | None = None) -> MultistepSampler:
    """Jumps of a consistency model over ``levels``, under a convention for new noise and clipping."""
    floor = 0.0 if convention == "ect" else header.preconditioning["sigma_min"]
    return MultistepSampler(levels, floor, clip=convention == "openai")


def recommended_sigmas(header: Header, steps: int | None = None) -> Tensor:
    """The levels of ``steps`` jumps: those that the checkpoint was tuned to, where it was, else well-tried ones.

    Without ``steps``, as many as it was tuned to; one where it was not.
    """
    steps = steps or len(header.sigmas) + 1
    if len(header.sigmas) == steps - 1:
        return _tensor([header.sigma_max, *header.sigmas])
    return multistep_schedule(steps, *_sigma_range(header))


def _multistep_sigmas(header: Header, options: WalkOptions) -> Tensor:
    if options.ts:
        return _indexed_sigmas(header, options.ts, options.steps)
    if options.sigmas:
        return _tensor(options.sigmas)
    return recommended_sigmas(header, options.steps)


def _indexed_sigmas(header: Header, ts: tuple[int, ...], steps: int | None) -> Tensor:
    """Levels by their place on the Karras grid; the last place is the image, to which nothing is added."""
    n = _counted(ts, steps)
    return karras(n, *_sigma_range(header))[[i for i in ts if i < n - 1]]


def _counted(ts: tuple[int, ...], steps: int | None) -> int:
    """How many levels has the grid that ``ts`` count on.

    OpenAI's end with the last place, so they tell it where that is one of their grids; UsageError for others.
    """
    n = steps or ts[-1] + 1
    if ts[-1] >= n:
        raise UsageError(f"a grid of {n} levels has none with the number {ts[-1]}", f"give --steps {ts[-1] + 1}")
    if steps is None and n not in OPENAI:
        grids = ", ".join(map(str, OPENAI[:-1]))
        raise UsageError(
            f"--ts {','.join(map(str, ts))} does not say of which grid: OpenAI's of {grids} or {OPENAI[-1]} levels end "
            f"at {', '.join(str(grid - 1) for grid in OPENAI)}, and this ends at {ts[-1]}",
            f"give the number of its levels: --steps {OPENAI[0] if ts[-1] < OPENAI[0] else n}",
        )
    return n


def check_sigmas(header: Header, steps: int | None, levels: Sequence[float] | None) -> None:
    """UsageError for levels that the model never saw, or that are not as many as ``steps``."""
    if not levels:
        return
    if steps and len(levels) != steps:
        raise UsageError(f"--steps {steps} and {len(levels)} --sigmas contradict each other", "give one of them")
    if levels[0] > header.sigma_max or levels[-1] < header.sigma_min:
        known = f"{header.sigma_min:g} to {header.sigma_max:g}"
        raise UsageError(f"the model knows noise levels from {known}, not {', '.join(f'{x:g}' for x in levels)}")


def _tensor(levels: Sequence[float]) -> Tensor:
    return torch.tensor(list(levels), dtype=torch.float64)
