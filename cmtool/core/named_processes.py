"""The processes of ``cmtool.processes``, by name and with options, and the one that a model was trained with.

Each takes the lowest and the highest noise level of a model and its preconditioning, from which comes what the options
do not say, and returns a ``Process``.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from cmtool.core.denoiser import Preconditioning
from cmtool.core.discrete_processes import DDPM, NCSN
from cmtool.core.process import EDM, VE, VP, FlowMatching, Process, SubVP, TrigFlow
from cmtool.core.rescaled_processes import SCALINGS, SquareRoot, rescale_process
from cmtool.errors import UsageError
from cmtool.options import registry
from cmtool.options.plugin_option import Option
from cmtool.options.types import Check, positive

__all__ = [
    "BetaLimitOption",
    "BetaMaxOption",
    "BetaMinOption",
    "ShiftOption",
    "StartOption",
    "StepsOption",
    "build_process",
    "linear_betas",
    "process_of",
    "span",
]

DISCRETE_STEPS = 1000

ScalingOption = Annotated[
    str, Option("scale s(t): the process's own, vp for 1/sqrt(1 + sigma^2), none for 1", choices=SCALINGS)
]
BetaMinOption = Annotated[float | None, Option("rate of the noise at time 0, by default the model's")]
BetaMaxOption = Annotated[float | None, Option("rate of the noise at time 1, by default the model's")]
StartOption = Annotated[
    float | None,
    Option(
        "time of the lowest noise level, where the highest is at time 1; chooses the betas",
        Check(lambda t: 0 < t < 1, "a time between 0 and 1"),
    ),
]
StepsOption = Annotated[int | None, Option("discretization steps, by default the model's")]
ShiftOption = Annotated[float | None, Option("shift of the cosine, by default the model's, 0.008")]
BetaLimitOption = Annotated[
    float | None, Option("largest beta of a discretization step, by default the model's, 0.999")
]
SigmaMinOption = Annotated[float | None, Option("noise level of the first time, by default the model's", positive())]
SigmaMaxOption = Annotated[float | None, Option("noise level of the last time, by default the model's", positive())]


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


def edm(low: float, high: float, own: Preconditioning, *, scaling: ScalingOption = "own") -> Process:
    """Time is the noise level.

    Formula: ``s = 1``, ``sigma = t``
    Paper: Karras et al. 2022, arXiv 2206.00364.
    Use: by default with an ODE solver.
    """
    return rescale_process(EDM(), scaling)


def ve(
    low: float,
    high: float,
    own: Preconditioning,
    *,
    sigma_min: SigmaMinOption = None,
    sigma_max: SigmaMaxOption = None,
    scaling: ScalingOption = "own",
) -> Process:
    """Variance exploding: the noise level grows geometrically with time.

    Formula: ``s = 1``, ``sigma = sigma_min (sigma_max/sigma_min)^t``
    Paper: Song et al. 2021, arXiv 2011.13456, eq. 30.
    Use: with networks trained on VE.
    """
    return rescale_process(VE(*span(sigma_min or low, sigma_max or high)), scaling)


def vp(
    low: float,
    high: float,
    own: Preconditioning,
    *,
    beta_min: BetaMinOption = None,
    beta_max: BetaMaxOption = None,
    start: StartOption = None,
    scaling: ScalingOption = "own",
) -> Process:
    """Variance preserving, with linear betas, or those with which the noise levels lie between ``start`` and 1.

    Formula: ``s = exp(-B/2)``, ``sigma = sqrt(e^B - 1)``, ``B = beta_min t + (beta_max - beta_min) t^2/2``
    Paper: Song et al. 2021, arXiv 2011.13456, eq. 32-33.
    Use: with networks trained on VP.
    """
    if start is None:
        return rescale_process(VP(*_betas(own, beta_min, beta_max)), scaling)
    if beta_min is not None or beta_max is not None:
        raise UsageError("the betas of vp follow from its start and the noise levels", "give one or the other")
    return rescale_process(VP.spanning(low, high, start), scaling)


def subvp(
    low: float,
    high: float,
    own: Preconditioning,
    *,
    beta_min: BetaMinOption = None,
    beta_max: BetaMaxOption = None,
    scaling: ScalingOption = "own",
) -> Process:
    """The scale of VP with less noise.

    Formula: ``s = exp(-B/2)``, ``sigma = 2 sinh(B/2)``, B as of vp
    Paper: Song et al. 2021, arXiv 2011.13456, eq. 34.
    Use: with networks trained on sub-VP.
    """
    return rescale_process(SubVP(*_betas(own, beta_min, beta_max)), scaling)


def sqrt(low: float, high: float, own: Preconditioning, *, scaling: ScalingOption = "own") -> Process:
    """Time is the square of the noise level.

    Formula: ``s = 1``, ``sigma = sqrt(t)``
    Paper: the VE schedule of Karras et al. 2022, arXiv 2206.00364, table 1.
    Use: to repeat their ablations.
    """
    return rescale_process(SquareRoot(), scaling)


def flow(low: float, high: float, own: Preconditioning, *, scaling: ScalingOption = "own") -> Process:
    """Straight lines from image to noise: flow matching.

    Formula: ``x_t = (1 - t) x_0 + t z``, ``sigma = t/(1 - t)``
    Paper: Lipman et al. 2023, arXiv 2210.02747.
    Use: with networks trained by flow matching.
    """
    return rescale_process(FlowMatching(), scaling)


def trigflow(
    low: float,
    high: float,
    own: Preconditioning,
    *,
    sigma_data: Annotated[float | None, Option("deviation of the data, by default the model's", positive())] = None,
    scaling: ScalingOption = "own",
) -> Process:
    """A quarter of a circle from image to noise.

    Formula: ``x_t = cos(t) x_0 + sin(t) sigma_data z``, ``sigma = sigma_data tan t``
    Paper: Lu and Song 2024, arXiv 2410.11081, section 3.
    Use: with networks trained on TrigFlow.
    """
    return rescale_process(TrigFlow(sigma_data or own.sigma_data), scaling)


def ddpm(
    low: float,
    high: float,
    own: Preconditioning,
    *,
    steps: StepsOption = None,
    beta_min: BetaMinOption = None,
    beta_max: BetaMaxOption = None,
    scaling: ScalingOption = "own",
) -> Process:
    """A chain of discretization steps with linear betas; between them noise comes at a constant rate.

    Formula: ``x_i = sqrt(1 - beta_i) x_{i-1} + sqrt(beta_i) z``, beta_i from beta_min/steps to beta_max/steps
    Paper: Ho et al. 2020, arXiv 2006.11239, eq. 2 and 4.
    Use: with networks trained as DDPM.
    """
    betas = _betas(own, beta_min, beta_max)
    return rescale_process(DDPM.linear(own.steps if steps is None else steps, *betas), scaling)


def cosine(
    low: float,
    high: float,
    own: Preconditioning,
    *,
    steps: StepsOption = None,
    shift: ShiftOption = None,
    most: BetaLimitOption = None,
    scaling: ScalingOption = "own",
) -> Process:
    """A chain of discretization steps whose signal falls as a cosine.

    Formula: ``s^2 ~ cos^2(pi/2 (i/steps + shift)/(1 + shift))`` with ``beta_i <= most``
    Paper: Nichol and Dhariwal 2021, arXiv 2102.09672, eq. 17.
    Use: with networks trained as iDDPM or ADM.
    """
    steps = own.steps if steps is None else steps
    shift, most = own.cosine_shift if shift is None else shift, own.beta_limit if most is None else most
    if steps < 2 or shift < 0 or not 0 < most < 1:
        raise UsageError("the process cosine has 2 steps or more, a shift of 0 or more and betas below 1")
    return rescale_process(DDPM.cosine(steps, shift, most), scaling)


def ncsn(
    low: float,
    high: float,
    own: Preconditioning,
    *,
    steps: Annotated[int, Option("noise levels")] = DISCRETE_STEPS,
    sigma_min: SigmaMinOption = None,
    sigma_max: SigmaMaxOption = None,
    scaling: ScalingOption = "own",
) -> Process:
    """A chain of noise levels in equal ratios.

    Formula: ``x_i = x_{i-1} + sqrt(sigma_i^2 - sigma_{i-1}^2) z``
    Paper: Song and Ermon 2019, arXiv 1907.05600; as a chain Song et al. 2021, arXiv 2011.13456, eq. 8.
    Use: with networks trained as NCSN or SMLD.
    """
    return rescale_process(NCSN.geometric(max(steps, 2), *span(sigma_min or low, sigma_max or high)), scaling)


# The conditioning of a network on the noise level gives away the process that it was trained with.
PROCESS_OF_TIME = {"vp": "vp", "subvp": "subvp", "log-half": "ve", "flow": "flow", "angle": "trigflow", "ddpm": "ddpm"}


def build_process(
    spec: str | Mapping[str, Any], sigma_min: float, sigma_max: float, own: Preconditioning | None = None
) -> Process:
    """The process that ``spec`` names, ``"vp"`` or ``{"name": "vp", "beta_max": 15, "scaling": "none"}``.

    ``sigma_min`` and ``sigma_max`` are the ends of a model's noise levels and ``own`` is what its network predicts:
    what the options do not say is taken from them, and without a name the process is the model's. UsageError for a
    name or an option that is not there.
    """
    own = own or Preconditioning()
    chosen = {"name": spec} if isinstance(spec, str) else {"name": _name_of(own), **spec}
    return registry.build("processes", chosen, sigma_min, sigma_max, own)


def process_of(preconditioning: Preconditioning, sigma_min: float, sigma_max: float) -> Process:
    """The process that the network was made for; EDM, where time is the noise level, when it was made for none."""
    return build_process(_name_of(preconditioning), sigma_min, sigma_max, preconditioning)


def _name_of(preconditioning: Preconditioning) -> str:
    return PROCESS_OF_TIME.get(preconditioning.time, "edm")
