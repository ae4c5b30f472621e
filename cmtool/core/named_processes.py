"""Processes by name with their options, and the one that a model was trained with.

A plugin of the group ``cmtool.processes`` takes the range of noise levels and what the network predicts; its
keyword-only arguments are its options.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Any

from cmtool.core.denoiser import Preconditioning
from cmtool.core.discrete_processes import DDPM, NCSN
from cmtool.core.process import EDM, VE, VP, FlowMatching, Process, SubVP, TrigFlow
from cmtool.core.rescaled_processes import SCALINGS, SquareRoot, rescale_process
from cmtool.errors import UsageError
from cmtool.options import registry
from cmtool.options.plugin_option import Option, PluginOption, options_of, parse_option, unknown_option

__all__ = ["build_process", "linear_betas", "process_of", "span", "typed_options"]

DISCRETE_STEPS = 1000


def linear_betas(beta_min: float, beta_max: float) -> tuple[float, float]:
    """The two as they are; UsageError where noise would not come in at a rate that grows from 0 or more."""
    if not 0 <= beta_min <= beta_max or not beta_max:
        raise UsageError(f"noise comes in at a rate that grows, not from {beta_min:g} to {beta_max:g}", "0.1 to 20")
    return beta_min, beta_max


def span(sigma_min: float, sigma_max: float) -> tuple[float, float]:
    """The two as they are; UsageError where they are no range of noise levels."""
    if not 0 < sigma_min < sigma_max:
        raise UsageError(f"noise levels go from above 0 to more, not from {sigma_min:g} to {sigma_max:g}")
    return sigma_min, sigma_max


def _betas(own: Preconditioning, beta_min: float | None, beta_max: float | None) -> tuple[float, float]:
    return linear_betas(own.beta_min if beta_min is None else beta_min, own.beta_max if beta_max is None else beta_max)


def edm(low: float, high: float, own: Preconditioning) -> Process:
    return EDM()


def ve(
    low: float, high: float, own: Preconditioning, *, sigma_min: float | None = None, sigma_max: float | None = None
) -> Process:
    return VE(*span(sigma_min or low, sigma_max or high))


def vp(
    low: float,
    high: float,
    own: Preconditioning,
    *,
    beta_min: float | None = None,
    beta_max: float | None = None,
    start: float | None = None,
) -> Process:
    """Linear betas, or those with which the range of levels lies between the times ``start`` and 1."""
    if start is None:
        return VP(*_betas(own, beta_min, beta_max))
    if beta_min is not None or beta_max is not None:
        raise UsageError("the betas of vp follow from its start and the range of levels", "give one or the other")
    if not 0 < start < 1:
        raise UsageError(f"start of vp is a time between 0 and 1, not {start:g}", "0.001 is usual")
    return VP.spanning(low, high, start)


def subvp(
    low: float, high: float, own: Preconditioning, *, beta_min: float | None = None, beta_max: float | None = None
) -> Process:
    return SubVP(*_betas(own, beta_min, beta_max))


def sqrt(low: float, high: float, own: Preconditioning) -> Process:
    return SquareRoot()


def flow(low: float, high: float, own: Preconditioning) -> Process:
    return FlowMatching()


def trigflow(low: float, high: float, own: Preconditioning, *, sigma_data: float | None = None) -> Process:
    return TrigFlow(sigma_data or own.sigma_data)


def ddpm(
    low: float,
    high: float,
    own: Preconditioning,
    *,
    steps: int | None = None,
    beta_min: float | None = None,
    beta_max: float | None = None,
) -> Process:
    return DDPM.linear(own.steps if steps is None else steps, *_betas(own, beta_min, beta_max))


def cosine(
    low: float,
    high: float,
    own: Preconditioning,
    *,
    steps: int | None = None,
    shift: float | None = None,
    most: float | None = None,
) -> Process:
    steps = own.steps if steps is None else steps
    shift, most = own.cosine_shift if shift is None else shift, own.beta_limit if most is None else most
    if steps < 2 or shift < 0 or not 0 < most < 1:
        raise UsageError("the cosine ladder has 2 steps or more, a shift of 0 or more and betas below 1")
    return DDPM.cosine(steps, shift, most)


def ncsn(
    low: float,
    high: float,
    own: Preconditioning,
    *,
    steps: int = DISCRETE_STEPS,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
) -> Process:
    return NCSN.geometric(max(steps, 2), *span(sigma_min or low, sigma_max or high))


# What a network is told of the noise level gives away the process that it was trained with.
PROCESS_OF_TIME = {"vp": "vp", "subvp": "subvp", "log-half": "ve", "flow": "flow", "angle": "trigflow", "ddpm": "ddpm"}


def build_process(
    spec: str | Mapping[str, Any], sigma_min: float, sigma_max: float, own: Preconditioning | None = None
) -> Process:
    """The process that ``spec`` names, ``"vp"`` or ``{"name": "vp", "beta_max": 15, "scaling": "none"}``.

    ``sigma_min`` and ``sigma_max`` are the range of a model's levels and ``own`` is what its network predicts: what
    the options do not say is taken from them, and without a name the process is the model's. ``scaling`` is "own",
    "vp", which keeps unit variance, or "none". UsageError for a name or an option that is not there.
    """
    own = own or Preconditioning()
    options = {"name": spec} if isinstance(spec, str) else dict(spec)
    name = options.pop("name", None) or _parameterization(own)
    make, shared = registry.get("processes", name), options_of(scale_process)
    scaling = typed_options(f"process '{name}'", scale_process, {k: options.pop(k) for k in shared if k in options})
    typed = typed_options(f"process '{name}'", make, options, also=shared)
    return scale_process(make(sigma_min, sigma_max, own, **typed), **scaling)


def scale_process(
    process: Process,
    *,
    scaling: Annotated[
        str, Option("scale s(t) of x: the process's own, that of unit variance (vp), or 1 (none)", choices=SCALINGS)
    ] = "own",
) -> Process:
    """``process`` under another scaling, an option that every process takes."""
    return rescale_process(process, scaling)


def typed_options(
    what: str, make: Callable[..., Any], options: Mapping[str, Any], also: Mapping[str, PluginOption] | None = None
) -> dict[str, Any]:
    """The options as the types that ``make`` takes; UsageError for one that neither it nor ``also`` has."""
    allowed = options_of(make)
    for key in options:
        if key not in allowed:
            raise unknown_option(what, key, {**allowed, **(also or {})})
    return {key: parse_option(allowed[key], f"option '{key}' of the {what}", value) for key, value in options.items()}


def process_of(preconditioning: Preconditioning, sigma_min: float, sigma_max: float) -> Process:
    """The process that the network was made for; EDM, where time is the noise level, when it was made for none."""
    return build_process(_parameterization(preconditioning), sigma_min, sigma_max, preconditioning)


def _parameterization(preconditioning: Preconditioning) -> str:
    return PROCESS_OF_TIME.get(preconditioning.time, "edm")
