"""Sigma schedules by name with their options: how the steps of a score model are spaced.

A plugin of the group ``cmtool.schedules`` takes the number of levels, the two ends, the process of the sampler and what
the network predicts; its keyword-only arguments are its options.
"""

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from torch import Tensor

from cmtool.core import sigma_schedules
from cmtool.core.denoiser import Preconditioning
from cmtool.core.discrete_processes import DDPM
from cmtool.core.named_processes import build_process, span, typed_options
from cmtool.core.process import EDM, Process
from cmtool.core.rescaled_processes import RescaledProcess, SquareRoot
from cmtool.errors import UsageError
from cmtool.options import registry
from cmtool.options.plugin_option import Option, options_of
from cmtool.options.types import positive

__all__ = ["default_schedule", "sigma_schedule"]


def karras(n: int, low: float, high: float, process: Process, own: Preconditioning, *, rho: float = 7.0) -> Tensor:
    if rho <= 0:
        raise UsageError(f"rho of the spacing karras is above 0, not {rho:g}", "7 is usual")
    return sigma_schedules.karras(n, low, high, rho)


def log(n: int, low: float, high: float, process: Process, own: Preconditioning) -> Tensor:
    return sigma_schedules.log_uniform(n, low, high)


def linear(n: int, low: float, high: float, process: Process, own: Preconditioning) -> Tensor:
    return sigma_schedules.linear(n, low, high)


def cosine(n: int, low: float, high: float, process: Process, own: Preconditioning) -> Tensor:
    """Evenly counted along the cosine schedule of 1000 rungs, between rungs too (Nichol and Dhariwal 2021)."""
    return time(n, low, high, DDPM.cosine(), own)


def iddpm(
    n: int,
    low: float,
    high: float,
    process: Process,
    own: Preconditioning,
    *,
    steps: int | None = None,
    shift: float | None = None,
    most: float | None = None,
) -> Tensor:
    """Evenly counted rungs of the cosine ladder between the ends (Karras et al. 2022, table 1)."""
    said = {"steps": steps, "shift": shift, "most": most}
    ladder = build_process({"name": "cosine"} | {k: v for k, v in said.items() if v is not None}, low, high, own)
    rungs = ladder.level(torch.arange(steps or own.steps, 0, -1, dtype=torch.float64))
    if not ((rungs >= low) & (rungs <= high)).any():
        raise UsageError(f"no rung of the spacing iddpm lies between {low:g} and {high:g}")
    return sigma_schedules.evenly_spaced_steps(rungs, n, low, high)


def vp(
    n: int,
    low: float,
    high: float,
    process: Process,
    own: Preconditioning,
    *,
    beta_min: float | None = None,
    beta_max: float | None = None,
    start: float | None = None,
) -> Tensor:
    """Even times of VP, with the options of that process."""
    said = {"name": "vp", "beta_min": beta_min, "beta_max": beta_max, "start": start}
    return time(n, low, high, build_process(said, low, high, own), own)


def time(n: int, low: float, high: float, process: Process, own: Preconditioning) -> Tensor:
    """Even times of the process that the walk is taken in."""
    ends = process.time(torch.tensor([high, low], dtype=torch.float64))
    return sigma_schedules.uniform_in_time(process, n, float(ends[0]), float(ends[1]))


def sigma_schedule(
    spec: str | Mapping[str, Any],
    n: int,
    sigma_min: float,
    sigma_max: float,
    process: Process,
    own: Preconditioning | None = None,
) -> Tensor:
    """``n`` levels between the ends under the spacing ``spec``, ``"karras"`` or ``{"name": "karras", "rho": 5}``.

    "time" are even times of ``process``, "vp" those of VP, whose betas are those of ``own`` as a rule. The options
    ``sigma_min`` and ``sigma_max`` are other ends. UsageError for a name or an option that is not there.
    """
    options = {"name": spec} if isinstance(spec, str) else dict(spec)
    name = options.pop("name", None) or "karras"
    make = registry.get("schedules", name)
    ends = typed_options(f"sigma schedule '{name}'", range_of, {k: options.pop(k) for k in RANGE if k in options})
    low, high = range_of(sigma_min, sigma_max, **ends)
    options = typed_options(f"sigma schedule '{name}'", make, options, also=options_of(range_of))
    return make(n, low, high, process, own or Preconditioning(), **options)


def default_schedule(process: Process) -> str:
    """The spacing of a reverse-time walk when none is said: even times, where they are those of a published process.

    Where time is the noise level, or its square, even times would spend themselves on the highest levels.
    """
    schedule = process.schedule if isinstance(process, RescaledProcess) else process
    return "karras" if isinstance(schedule, EDM | SquareRoot) else "time"


RANGE = ("sigma_min", "sigma_max")


def range_of(
    low: float,
    high: float,
    *,
    sigma_min: Annotated[float | None, Option("lowest noise level; none: the model's", positive())] = None,
    sigma_max: Annotated[float | None, Option("highest noise level; none: the model's", positive())] = None,
) -> tuple[float, float]:
    """The ends of a schedule, options that every schedule takes: the model's own, or those asked for."""
    return span(low if sigma_min is None else sigma_min, high if sigma_max is None else sigma_max)
