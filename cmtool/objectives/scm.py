"""Simplified continuous-time consistency models (sCM): training (sct) and distillation (scd).

In the paper's coordinates ``x_t = cos(t) x``, ``sigma = sigma_data tan t``, the model is ``f = cos(t) x_t - sin(t)
sigma_data F``, and F is moved along ``cos(t) df/dt``, so that f goes against it. As ``cos t sin t d/dt`` is ``d/d ln
sigma``, that is

    g = -cos^2 t (sigma_data F - dx_t/dt) - r (cos t sin t x_t + sigma_data dF/d ln sigma)

with both terms finite at every level. The first is denoising; r, which grows from 0 to 1, brings in the second.
Source: Lu and Song 2024, arXiv 2410.11081, section 4 and algorithm 1.
"""

import torch
from torch import Tensor

from cmtool.core.denoiser import Denoise, Denoiser, Preconditioning, broadcast_like
from cmtool.errors import UsageError, unknown_name
from cmtool.objectives.continuous import (
    Continuous,
    Output,
    Tangent,
    TrajectoryVelocity,
    build_derivative,
    velocity_of_noise,
    velocity_of_teacher,
)
from cmtool.objectives.denoising import LogVariance
from cmtool.objectives.noise_levels import log_normal

__all__ = ["scd", "scm", "scm_tangent", "sct", "velocity"]


NORMS = ("rms", "l2")


def velocity(sigma_data: float) -> Output:
    """``F = (cos(t) x_t - f) / (sigma_data sin t)``, the part of a consistency model that no boundary fixes.

    With ``f = c_skip x + c_out N`` it is ``((cos^2 t - c_skip) x - c_out N) / (sigma_data sin t)``: the division is one
    of coefficients, in float64 where sigma is, and leaves -N of the "edm" form and N of TrigFlow. Only a model that is
    not a ``Denoiser`` has its output divided (ibid., appendix B).
    """

    def output(model: Denoise, x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
        cos, sin = trig_of_sigma(sigma, sigma_data)
        if isinstance(model, Denoiser):
            c_skip, c_out, _, _ = model.preconditioning(sigma)
            inside = model.raw_output(x, sigma, labels)
        else:
            c_skip, c_out, inside = torch.zeros_like(sigma), torch.ones_like(sigma), model(x, sigma, labels)
        return (broadcast_like((cos**2 - c_skip) / sin, x) * x - broadcast_like(c_out / sin, x) * inside) / sigma_data

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


def scm(
    slope: TrajectoryVelocity,
    *,
    P_mean: float,
    P_std: float,
    warmup: float,
    c: float,
    norm: str,
    tangent: str,
    adaptive: bool,
    prior: float,
    sigma_data: float,
    teacher: Denoiser | None = None,
) -> Continuous:
    """``|F - sg(F + g / (|g| + c))|^2 / sigma^prior``, mean over pixels; ``warmup`` is r's share of the run.

    An image whose tangent is not finite gets g = 0 and the loss nan; where the network itself is not finite the
    gradient is not either, and the loop leaves the step out and counts it.
    """
    if norm not in NORMS:
        raise unknown_name("norm", norm, NORMS)
    if warmup < 0 or c < 0:
        raise UsageError(f"the share of the warm-up ({warmup:g}) and c ({c:g}) cannot be negative", "0.1 suits both")

    def error(tangent: Tangent, progress: float) -> Tensor:
        r = min(1.0, progress / warmup) if warmup else 1.0
        g = scm_tangent(tangent, r, sigma_data)
        aim = tangent.y + normalize_tangent(g, c, norm)
        return (tangent.here - aim).square().flatten(1).mean(1) * tangent.sigma.to(g) ** -prior

    objective = Continuous(
        levels=lambda u: log_normal(u, P_mean, P_std),
        slope=slope,
        output=velocity(sigma_data),
        derivative=build_derivative(tangent),
        error=error,
        head=LogVariance() if adaptive else None,
        teacher=teacher,
    )
    objective.preconditioning = Preconditioning.trigflow(sigma_data)
    return objective


def sct(
    *,
    P_mean: float = -1.0,
    P_std: float = 1.4,
    warmup: float = 0.1,
    c: float = 0.1,
    norm: str = "rms",
    tangent: str = "jvp",
    adaptive: bool = False,
    prior: float = 0.0,
    sigma_data: float = 0.5,
) -> Continuous:
    """TrigFlow's consistency model from data alone: ``dx_t/dt = cos(t) z - sin(t) x_0``, ``ln sigma`` normal.

    ``warmup`` is the share of the run over which r grows (10,000 steps in the paper); ``c`` and ``norm`` are those of
    g / (|g| + c), "rms" or "l2", which differ by the square root of the number of pixels; ``tangent`` is "jvp" or
    "difference". ``adaptive`` learns the weight of each level, as the paper does: in runs of minutes it is better off,
    for it makes up for small errors, which the normalisation keeps small. ``prior`` p divides the loss by sigma^p.
    """
    return scm(
        velocity_of_noise,
        P_mean=P_mean,
        P_std=P_std,
        warmup=warmup,
        c=c,
        norm=norm,
        tangent=tangent,
        adaptive=adaptive,
        prior=prior,
        sigma_data=sigma_data,
    )


def scd(
    teacher: Denoiser,
    *,
    P_mean: float = -1.0,
    P_std: float = 1.4,
    warmup: float = 0.1,
    c: float = 0.1,
    norm: str = "rms",
    tangent: str = "jvp",
    adaptive: bool = False,
    prior: float = 0.0,
    sigma_data: float = 0.5,
) -> Continuous:
    """TrigFlow's consistency model with the teacher's velocity as ``dx_t/dt``; any score model is a teacher.

    The options are those of ``sct``.
    """
    return scm(
        velocity_of_teacher(teacher),
        P_mean=P_mean,
        P_std=P_std,
        warmup=warmup,
        c=c,
        norm=norm,
        tangent=tangent,
        adaptive=adaptive,
        prior=prior,
        sigma_data=sigma_data,
        teacher=teacher,
    )
