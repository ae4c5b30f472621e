"""From the options of sampling to a sampler that suits the model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cmtool.core.denoiser import Preconditioning
from cmtool.core.flow_map import GammaSampler
from cmtool.core.named_processes import build_process, process_of
from cmtool.core.named_schedules import default_schedule, sigma_schedule
from cmtool.core.process import Process
from cmtool.core.sampling.samplers import MultistepSampler, ODESampler, Sampler, SamplerFactory
from cmtool.core.sigma_schedules import append_zero, karras, multistep_schedule
from cmtool.core.solvers.runge_kutta import in_native_time
from cmtool.core.solvers.solver import Solver
from cmtool.errors import Hint, Run, Setting, UsageError
from cmtool.files.header import Header
from cmtool.options import registry
from cmtool.options.types import Spec
from cmtool.settings.sampling import GenerationOptions

__all__ = [
    "SamplerSetup",
    "build_solver",
    "check_sigmas",
    "multistep_sampler",
    "ode_steps",
    "recommended_sigmas",
    "refuse_two",
    "set_up_sampler",
]

ODE_SOLVER, ODE_STEPS = "heun", 18  # 35 NFE: the CIFAR-10 setting of Karras et al. 2022
OPENAI = (40, 151, 201)  # noise levels of the Karras schedules that OpenAI's published commands count on
CONSISTENCY_ONLY = ("ts", "convention")
SCORE_ONLY = ("solver", "sampler", "schedule", "process")


@dataclass
class SamplerSetup:
    """The sampler of every image; ``nfe_used`` counts the NFE of all images drawn so far."""

    sampler: Sampler
    nfe_used: int = 0
    grid: int | None = None  # how many noise levels the Karras schedule has that ``--ts`` counts on

    @property
    def sigmas(self) -> Tensor:
        return self.sampler.sigmas

    @property
    def nfe(self) -> int | None:
        """NFE of each image; None where the solver decides as it goes."""
        return self.sampler.nfe

    @property
    def description(self) -> str:
        """The noise levels in words, and their Karras schedule where they were given by index."""
        sigmas = ", ".join(f"{sigma:.4g}" for sigma in self.sigmas)
        return f"{sigmas}, on the Karras schedule of {self.grid} sigmas" if self.grid else sigmas


def set_up_sampler(header: Header, options: GenerationOptions | None = None) -> SamplerSetup:
    """How to sample a model of this kind.

    ``steps`` counts the NFE of a consistency model and the steps of a score model's solver. UsageError for options of
    the other kind, and for noise levels that the model never saw.
    """
    options = options or GenerationOptions()
    check_sigmas(header, None if options.ts else options.steps, options.sigmas)
    if options.gamma is not None:
        _check_gamma(header, options)
    if header.kind == "score":
        others = ("ts",) if options.convention == "openai" else CONSISTENCY_ONLY
        _refuse(options, others, "consistency models, and this is a score model", {"solver": "heun"})
        if header.sigmas and not any(getattr(options, key) is not None for key in ("sigmas", *SCORE_ONLY)):
            return SamplerSetup(_distilled_sampler(header, options))
        return SamplerSetup(_score_sampler(header, options))
    steps = options.steps or 2
    _refuse(options, SCORE_ONLY, "score models, and this is a consistency model", {"steps": steps})
    return SamplerSetup(
        _consistency_sampler(header, options), grid=_grid_size(options.ts, options.steps) if options.ts else None
    )


def _refuse(options: GenerationOptions, keys: Sequence[str], whose: str, instead: dict[str, Any]) -> None:
    given = [Setting(key) for key in keys if getattr(options, key) is not None]
    if given:
        hint = Hint("leave it out: {}", Run(options.command, **instead))
        raise UsageError(Hint("{} is for {}", given[0], whose), hint)


def refuse_two(solver: Spec | None, sampler: Spec | None) -> None:
    """UsageError where both are given."""
    if solver and sampler:
        raise UsageError(
            Hint(
                "{} follows the ODE, and {} does not",
                Setting("solver", solver.name or ODE_SOLVER),
                Setting("sampler", sampler.name),
            ),
            "give one of them",
        )


def build_solver(spec: Spec | None) -> Solver:
    """The solver of a Spec, whose name may be left out."""
    return registry.build("solvers", {"name": ODE_SOLVER, **(spec or {})})


def ode_steps(solver: Solver, steps: int | None) -> int:
    """The noise levels above 0; one step is enough for a solver that chooses its own."""
    return steps or (2 if solver.nfe_per_step is None else ODE_STEPS)


def _distilled_sampler(header: Header, options: GenerationOptions) -> Sampler:
    """The few Euler steps that a score model was distilled to."""
    own = len(header.sigmas)
    if options.steps not in (None, own):
        raise UsageError(
            f"this model takes the {own} steps that it was distilled to, not {options.steps}",
            Hint("leave out {}, or name the {} or the {} to try it with", *map(Setting, ("steps", "sigmas", "solver"))),
        )
    solver, clip = build_solver(Spec(name="euler")), options.convention == "openai"
    return ODESampler(append_zero(_tensor(header.sigmas)), solver, clip)


def _score_sampler(header: Header, options: GenerationOptions) -> Sampler:
    """The sampler asked for, or the ODE sampler with its solver, of a score model."""
    refuse_two(options.solver, options.sampler)
    process = _process(header, options.process)
    own = process or process_of(_preconditioning(header), *_sigma_range(header))
    if options.sampler:
        if options.convention:
            flags = Setting("convention", "openai"), Setting("sampler")
            raise UsageError(Hint("{} clips what ODE solvers see, and {} takes none", *flags), "leave it out")
        factory: SamplerFactory = registry.build("samplers", options.sampler)
        n = (options.steps or factory.default_steps) + 1
        return factory.build_sampler(own, own.time(_choose_sigmas(header, options, default_schedule(own), own, n)))
    solver = build_solver(options.solver)
    sigmas = _choose_sigmas(header, options, "karras", own, ode_steps(solver, options.steps))
    solver = _in_native_time(solver, process) if process else solver
    return ODESampler(append_zero(sigmas), solver, clip=options.convention == "openai")


def _in_native_time(solver: Solver, process: Process) -> Solver:
    try:
        return in_native_time(solver, process)
    except UsageError as error:
        hint = Hint("leave out {}, or take {}, heun or rk4", Setting("process"), Setting("solver", "euler"))
        raise UsageError(error.message, hint) from error


def _choose_sigmas(header: Header, options: GenerationOptions, default: str, process: Process, n: int) -> Tensor:
    """The noise levels asked for, or ``n`` of the schedule asked for, ``default`` where none was."""
    if options.sigmas:
        return _tensor(options.sigmas)
    spec = {"name": default, **(options.schedule or {})}
    sigmas = sigma_schedule(spec, n, *_sigma_range(header), process, _preconditioning(header))
    if {"sigma_min", "sigma_max"} & spec.keys():
        check_sigmas(header, None, sigmas.tolist())
    return sigmas


def _process(header: Header, spec: Spec | None) -> Process | None:
    return build_process(spec, *_sigma_range(header), _preconditioning(header)) if spec else None


def _preconditioning(header: Header) -> Preconditioning:
    return Preconditioning(**header.preconditioning)


def _sigma_range(header: Header) -> tuple[float, float]:
    return header.sigma_min, header.sigma_max


def _check_gamma(header: Header, options: GenerationOptions) -> None:
    """UsageError for ``gamma`` with a model that is no flow map."""
    if not header.preconditioning.get("jumps"):
        what = "steps to images alone" if header.kind == "consistency" else "is a score model"
        raise UsageError(
            Hint("{} is for a flow map, which steps to any noise level, and this one {}", Setting("gamma"), what),
            Hint("leave it out, or train one: {}", Run("distill", method="ctm")),
        )
    if options.convention:
        both = Setting("gamma"), Setting("convention")
        raise UsageError(Hint("{} is a convention of its own and goes with no {}", *both), "give one of them")


def _consistency_sampler(header: Header, options: GenerationOptions) -> Sampler:
    """Multistep consistency sampling, under the convention that was asked for."""
    if options.gamma is not None:
        return GammaSampler(_multistep_sigmas(header, options), options.gamma)
    return multistep_sampler(header, _multistep_sigmas(header, options), options.convention)


def multistep_sampler(header: Header, sigmas: Tensor, convention: str | None = None) -> MultistepSampler:
    """Multistep consistency sampling over ``sigmas``, under a convention for new noise and clipping."""
    floor = 0.0 if convention == "ect" else header.preconditioning["sigma_min"]
    return MultistepSampler(sigmas, floor, clip=convention == "openai")


def recommended_sigmas(header: Header, steps: int | None = None) -> Tensor:
    """The noise levels of ``steps`` steps: those that the checkpoint was tuned to, where it was, else well-tried ones.

    Without ``steps``, as many as it was tuned to; one where it was not.
    """
    steps = steps or len(header.sigmas) + 1
    if len(header.sigmas) == steps - 1:
        return _tensor([header.sigma_max, *header.sigmas])
    return multistep_schedule(steps, *_sigma_range(header))


def _multistep_sigmas(header: Header, options: GenerationOptions) -> Tensor:
    if options.ts:
        return _indexed_sigmas(header, options.ts, options.steps)
    if options.sigmas:
        return _tensor(options.sigmas)
    return recommended_sigmas(header, options.steps)


def _indexed_sigmas(header: Header, ts: tuple[int, ...], steps: int | None) -> Tensor:
    """Noise levels by their index in the Karras schedule; the last index is the image, to which nothing is added."""
    n = _grid_size(ts, steps)
    return karras(n, *_sigma_range(header))[[i for i in ts if i < n - 1]]


def _grid_size(ts: tuple[int, ...], steps: int | None) -> int:
    """How many noise levels the Karras schedule has that ``ts`` are indices of.

    OpenAI's end with the last index, which says it where it is one of their schedules; UsageError for others.
    """
    n = steps or ts[-1] + 1
    if ts[-1] >= n:
        hint = Hint("give {}", Setting("steps", ts[-1] + 1))
        raise UsageError(f"a Karras schedule of {n} sigmas has none with the index {ts[-1]}", hint)
    if steps is None and n not in OPENAI:
        grids = ", ".join(map(str, OPENAI[:-1]))
        raise UsageError(
            Hint(
                "{} does not say of which schedule: OpenAI's of {} or {} sigmas end at {}, and this ends at {}",
                Setting("ts", ",".join(map(str, ts))),
                grids,
                str(OPENAI[-1]),
                ", ".join(str(grid - 1) for grid in OPENAI),
                str(ts[-1]),
            ),
            Hint("give the number of its sigmas: {}", Setting("steps", OPENAI[0] if ts[-1] < OPENAI[0] else n)),
        )
    return n


def check_sigmas(header: Header, steps: int | None, sigmas: Sequence[float] | None) -> None:
    """UsageError for noise levels that the model never saw, or that are not as many as ``steps``."""
    if not sigmas:
        return
    if steps and len(sigmas) != steps:
        both = Setting("steps", steps), str(len(sigmas)), Setting("sigmas")
        raise UsageError(Hint("{} and {} {} contradict each other", *both), "give one of them")
    if sigmas[0] > header.sigma_max or sigmas[-1] < header.sigma_min:
        known = f"{header.sigma_min:g} to {header.sigma_max:g}"
        raise UsageError(f"the model knows noise levels from {known}, not {', '.join(f'{x:g}' for x in sigmas)}")


def _tensor(sigmas: Sequence[float]) -> Tensor:
    return torch.tensor(list(sigmas), dtype=torch.float64)
