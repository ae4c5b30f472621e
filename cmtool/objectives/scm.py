"""Simplified continuous-time consistency models (sCM): training (sct) and distillation (scd).

In the paper's coordinates ``x_t = cos(t) x``, ``sigma = sigma_data tan t``, the model is ``f = cos(t) x_t - sin(t)
sigma_data F``, and F is moved along ``cos(t) df/dt``, so that f goes against it. As ``cos t sin t d/dt`` is ``d/d ln
sigma``, that is

    g = -cos^2 t (sigma_data F - dx_t/dt) - r (cos t sin t x_t + sigma_data dF/d ln sigma)

with both terms finite at every noise level. The first is denoising; r, which grows from 0 to 1, brings in the second.
Source: Lu and Song 2024, arXiv 2410.11081, section 4 and algorithm 1.
"""

from collections.abc import Callable
from typing import Annotated

import torch
from torch import Tensor

from cmtool.core.denoiser import AugmentedDenoiser, Denoise, Denoiser, Preconditioning, broadcast_like
from cmtool.errors import unknown_name
from cmtool.objectives.continuous import (
    Continuous,
    Output,
    Tangent,
    TangentOption,
    TangentRule,
    build_derivative,
    velocity_of_noise,
    velocity_of_teacher,
)
from cmtool.objectives.noise_levels import LogVariance, PMeanOption, PStdOption, log_normal
from cmtool.objectives.objective import Requirements, SigmaDataOption
from cmtool.options.plugin_option import Option
from cmtool.options.types import at_least

__all__ = ["normalize_tangent", "scd", "scm_error", "scm_tangent", "sct", "velocity_output"]


NORMS = ("rms", "l2")

WarmupOption = Annotated[float, Option("share of the run over which r grows from 0 to 1", at_least(0))]
TangentConstantOption = Annotated[float, Option("c of the tangent normalization g / (|g| + c)", at_least(0))]
NormOption = Annotated[
    str, Option("norm of g: 'rms' is 'l2' divided by the root of the number of pixels", choices=NORMS)
]
AdaptiveOption = Annotated[bool, Option("learn the weight of each noise level, as the paper does")]
PriorOption = Annotated[float, Option("p of a further weight 1/sigma^p")]


def velocity_output(sigma_data: float) -> Output:
    """``F = (cos(t) x_t - f) / (sigma_data sin t)``, the part of a consistency model that no boundary fixes.

    With ``f = c_skip x + c_out N`` it is ``((cos^2 t - c_skip) x - c_out N) / (sigma_data sin t)``: the division is one
    of coefficients, in float64 where sigma is, and leaves -N of the "edm" form and N of TrigFlow. Only a model that is
    not a ``Denoiser`` has its output divided (ibid., appendix B).
    """

    def output(model: Denoise, x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
        cos, sin = trig_of_sigma(sigma, sigma_data)
        if isinstance(model, Denoiser | AugmentedDenoiser):
            c_skip, c_out, _, _ = model.preconditioning(sigma)
            raw = model.raw_output(x, sigma, labels)
        else:
            c_skip, c_out, raw = torch.zeros_like(sigma), torch.ones_like(sigma), model(x, sigma, labels)
        return (broadcast_like((cos**2 - c_skip) / sin, x) * x - broadcast_like(c_out / sin, x) * raw) / sigma_data

    return output


def trig_of_sigma(sigma: Tensor, sigma_data: float) -> tuple[Tensor, Tensor]:
    """``cos t, sin t`` of ``sigma = sigma_data tan t``, without the cancellation of a tangent near pi/2."""
    length = (sigma**2 + sigma_data**2).sqrt()
    return sigma_data / length, sigma / length


def scm_tangent(tangent: Tangent, r: float, sigma_data: float) -> Tensor:
    """g, what is added to F; 0 for the exact consistency function at r = 1."""
    x, F = tangent.x, tangent.y
    cos, sin = (broadcast_like(v, x) for v in trig_of_sigma(tangent.sigma, sigma_data))
    dx_t = sigma_data / cos * tangent.dx - sin * x  # d(cos(t) x)/dt
    return -(cos**2) * (sigma_data * F - dx_t) - r * (cos**2 * sin * x + sigma_data * tangent.dy)


def normalize_tangent(g: Tensor, c: float, norm: str) -> Tensor:
    """``g / (|g| + c)`` image by image, in float32 or more; 0, which teaches nothing, where g is not finite."""
    flat = g.flatten(1).to(torch.promote_types(g.dtype, torch.float32))
    size = flat.norm(dim=1, keepdim=True) / (flat.shape[1] ** 0.5 if norm == "rms" else 1)
    flat = torch.where(size.isfinite(), flat / (size + c), 0)
    return flat.view_as(g)


def scm_error(
    warmup: float, c: float, norm: str, prior: float, sigma_data: float
) -> Callable[[Tangent, float], Tensor]:
    """``|F - sg(F + g / (|g| + c))|^2 / sigma^prior``, mean over pixels; ``warmup`` is r's share of the run.

    An image whose tangent is not finite gets g = 0 and the loss nan; where the network itself is not finite the
    gradient is not either, and the loop leaves the step out and counts it.
    """
    if norm not in NORMS:
        raise unknown_name("norm", norm, NORMS)

    def error(tangent: Tangent, progress: float) -> Tensor:
        r = min(1.0, progress / warmup) if warmup else 1.0
        g = scm_tangent(tangent, r, sigma_data)
        target = tangent.y + normalize_tangent(g, c, norm)
        return (tangent.online - target).square().flatten(1).mean(1) * tangent.sigma.to(g) ** -prior

    return error


def sct(
    *,
    P_mean: PMeanOption = -1.0,
    P_std: PStdOption = 1.4,
    warmup: WarmupOption = 0.1,
    c: TangentConstantOption = 0.1,
    norm: NormOption = "rms",
    tangent: TangentOption = "jvp",
    adaptive: AdaptiveOption = False,
    prior: PriorOption = 0.0,
    sigma_data: SigmaDataOption = 0.5,
) -> Continuous:
    """Simplified consistency training in continuous time: TrigFlow's consistency model from data alone.

    Formula: ``loss = |F - sg(F + g / (|g| + c))|^2`` with g along ``dx_t/dt = cos(t) z - sin(t) x_0``
    Paper: Lu and Song 2024, arXiv 2410.11081, section 4 and algorithm 1.
    Use: with --init and time, for better samples than 'ect' gives. Needs a network that forward mode can pass, or else
    the tangent by "difference".

    The paper warms up over 10,000 steps and has ``adaptive``: in runs of minutes it is better off, for it makes up for
    small errors, which the normalization keeps small.
    """
    return Continuous(
        TangentRule(
            lambda u: log_normal(u, P_mean, P_std),
            velocity_of_noise,
            velocity_output(sigma_data),
            build_derivative(tangent),
        ),
        scm_error(warmup, c, norm, prior, sigma_data),
        Requirements("consistency", preconditioning=Preconditioning.trigflow(sigma_data)),
        LogVariance() if adaptive else None,
    )


def scd(
    teacher: Denoiser,
    *,
    P_mean: PMeanOption = -1.0,
    P_std: PStdOption = 1.4,
    warmup: WarmupOption = 0.1,
    c: TangentConstantOption = 0.1,
    norm: NormOption = "rms",
    tangent: TangentOption = "jvp",
    adaptive: AdaptiveOption = False,
    prior: PriorOption = 0.0,
    sigma_data: SigmaDataOption = 0.5,
) -> Continuous:
    """Simplified consistency distillation in continuous time: 'sct' along the teacher's ODE.

    Formula: ``loss = |F - sg(F + g / (|g| + c))|^2`` with g along ``dx_t/dt = sigma_data F_teacher(x_t, t)``
    Paper: Lu and Song 2024, arXiv 2410.11081, section 4 and algorithm 1.
    Use: with a good teacher and time; any score model is a teacher, of whatever preconditioning.

    The options are those of 'sct'.
    """
    return Continuous(
        TangentRule(
            lambda u: log_normal(u, P_mean, P_std),
            velocity_of_teacher(teacher),
            velocity_output(sigma_data),
            build_derivative(tangent),
        ),
        scm_error(warmup, c, norm, prior, sigma_data),
        Requirements("consistency", preconditioning=Preconditioning.trigflow(sigma_data)),
        LogVariance() if adaptive else None,
        teacher,
    )
