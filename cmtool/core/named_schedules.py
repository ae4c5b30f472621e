"""The sigma schedules of ``cmtool.schedules``: where the steps of a score model lie, by name and with options.

Each takes the number n of noise levels, the process in which is sampled and the preconditioning of the model, and
returns [n] noise levels, descending, float64. The ends are options, by default the model's own.
"""

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from torch import Tensor

from cmtool.core import named_processes, sigma_schedules
from cmtool.core.denoiser import Preconditioning
from cmtool.core.discrete_processes import DDPM
from cmtool.core.named_processes import (
    BetaLimitOption,
    BetaMaxOption,
    BetaMinOption,
    ShiftOption,
    StartOption,
    StepsOption,
    span,
)
from cmtool.core.process import EDM, Process
from cmtool.core.rescaled_processes import RescaledProcess, SquareRoot
from cmtool.errors import UsageError
from cmtool.options import registry
from cmtool.options.plugin_option import Option
from cmtool.options.types import positive

__all__ = ["default_schedule", "sigma_schedule"]

LowestOption = Annotated[float, Option("lowest noise level above 0, by default the model's")]
HighestOption = Annotated[float, Option("highest noise level, by default the model's")]


def karras(
    n: int,
    process: Process,
    preconditioning: Preconditioning,
    *,
    sigma_min: LowestOption = 0.002,
    sigma_max: HighestOption = 80.0,
    rho: Annotated[float, Option("the power; larger puts more steps at low noise levels", positive())] = 7.0,
) -> Tensor:
    """Even in ``sigma^(1/rho)``, the schedule of EDM.

    Formula: ``sigma_i = (sigma_max^(1/rho) + i/(n-1) (sigma_min^(1/rho) - sigma_max^(1/rho)))^rho``
    Paper: Karras et al. 2022, arXiv 2206.00364, eq. 5.
    Use: by default, with any ODE solver.
    """
    return sigma_schedules.karras(n, *span(sigma_min, sigma_max), rho)


def log(
    n: int,
    process: Process,
    preconditioning: Preconditioning,
    *,
    sigma_min: LowestOption = 0.002,
    sigma_max: HighestOption = 80.0,
) -> Tensor:
    """Even in ln sigma.

    Formula: ``sigma_i = sigma_max (sigma_min/sigma_max)^(i/(n-1))``
    Paper: VE's discretization in Karras et al. 2022, arXiv 2206.00364, table 1.
    Use: with exponential integrators and Langevin dynamics.
    """
    return sigma_schedules.log_uniform(n, *span(sigma_min, sigma_max))


def linear(
    n: int,
    process: Process,
    preconditioning: Preconditioning,
    *,
    sigma_min: LowestOption = 0.002,
    sigma_max: HighestOption = 80.0,
) -> Tensor:
    """Even in sigma.

    Formula: ``sigma_i = sigma_max + i/(n-1) (sigma_min - sigma_max)``
    Use: for comparison; nearly all of its steps lie at high noise levels.
    """
    return sigma_schedules.linear(n, *span(sigma_min, sigma_max))


def cosine(
    n: int,
    process: Process,
    preconditioning: Preconditioning,
    *,
    sigma_min: LowestOption = 0.002,
    sigma_max: HighestOption = 80.0,
) -> Tensor:
    """Even times of the cosine process of 1000 discretization steps, between the steps too.

    Paper: Nichol and Dhariwal 2021, arXiv 2102.09672, eq. 17.
    Use: for comparison, or for networks trained on that process.
    """
    return _even_times(n, DDPM.cosine(), *span(sigma_min, sigma_max))


def iddpm(
    n: int,
    process: Process,
    preconditioning: Preconditioning,
    *,
    sigma_min: LowestOption = 0.002,
    sigma_max: HighestOption = 80.0,
    steps: StepsOption = None,
    shift: ShiftOption = None,
    most: BetaLimitOption = None,
) -> Tensor:
    """Every so many discretization steps of the cosine process, those between the ends.

    Paper: Karras et al. 2022, arXiv 2206.00364, table 1.
    Use: for iDDPM's and ADM's networks, which know these noise levels.
    """
    low, high = span(sigma_min, sigma_max)
    chain = named_processes.cosine(low, high, preconditioning, steps=steps, shift=shift, most=most)
    known = chain.sigma(torch.arange(steps or preconditioning.steps, 0, -1, dtype=torch.float64))
    if not ((known >= low) & (known <= high)).any():
        raise UsageError(f"no discretization step of the schedule iddpm lies between {low:g} and {high:g}")
    return sigma_schedules.evenly_spaced_steps(known, n, low, high)


def vp(
    n: int,
    process: Process,
    preconditioning: Preconditioning,
    *,
    sigma_min: LowestOption = 0.002,
    sigma_max: HighestOption = 80.0,
    beta_min: BetaMinOption = None,
    beta_max: BetaMaxOption = None,
    start: StartOption = None,
) -> Tensor:
    """Even times of the process vp, with its options.

    Paper: Song et al. 2021, arXiv 2011.13456; Karras et al. 2022, arXiv 2206.00364, table 1.
    Use: for networks trained on VP.
    """
    low, high = span(sigma_min, sigma_max)
    chosen = named_processes.vp(low, high, preconditioning, beta_min=beta_min, beta_max=beta_max, start=start)
    return _even_times(n, chosen, low, high)


def time(
    n: int,
    process: Process,
    preconditioning: Preconditioning,
    *,
    sigma_min: LowestOption = 0.002,
    sigma_max: HighestOption = 80.0,
) -> Tensor:
    """Even times of the process in which is sampled.

    Paper: Song et al. 2021, arXiv 2011.13456.
    Use: with the samplers of the reverse-time SDE, for which it is the default.
    """
    return _even_times(n, process, *span(sigma_min, sigma_max))


def _even_times(n: int, process: Process, low: float, high: float) -> Tensor:
    ends = process.time(torch.tensor([high, low], dtype=torch.float64))
    return sigma_schedules.uniform_in_time(process, n, float(ends[0]), float(ends[1]))


def sigma_schedule(
    spec: str | Mapping[str, Any],
    n: int,
    sigma_min: float,
    sigma_max: float,
    process: Process,
    preconditioning: Preconditioning | None = None,
) -> Tensor:
    """``n`` noise levels between the ends under a schedule: ``"karras"`` or ``{"name": "karras", "rho": 5}``.

    "time" are even times of ``process``, "vp" those of VP, whose betas are those of ``preconditioning`` as a rule.
    The options ``sigma_min`` and ``sigma_max`` of ``spec`` are other ends. UsageError for a name or an option that is
    not there.
    """
    chosen = {"name": spec} if isinstance(spec, str) else {"name": "karras", **spec}
    own = preconditioning or Preconditioning()
    return registry.build("schedules", chosen, n, process, own, sigma_min=sigma_min, sigma_max=sigma_max)


def default_schedule(process: Process) -> str:
    """The schedule of the reverse-time SDE when none is said: even times, where they are those of a published process.

    Where time is the noise level, or its square, even times would spend themselves on the highest noise levels.
    """
    schedule = process.schedule if isinstance(process, RescaledProcess) else process
    return "karras" if isinstance(schedule, EDM | SquareRoot) else "time"
