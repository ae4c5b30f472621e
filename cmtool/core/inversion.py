"""From images to the noise that a model makes them of."""

from collections.abc import Callable

import torch
from torch import Tensor

from cmtool.core.denoiser import Denoise
from cmtool.core.noise import Noise
from cmtool.core.sampling.loops import last, probability_flow
from cmtool.core.sigma_schedules import karras
from cmtool.core.solvers.runge_kutta import heun

__all__ = ["invert_by_search", "invert_ode"]

STEPS = 40  # of Heun's method, 78 NFE


def invert_ode(model: Denoise, x: Tensor, sigma_min: float, sigma: float, labels: Tensor | None = None) -> Tensor:
    """``z`` with ``sigma z`` where the ODE of a score model leads x [B, ...] from ``sigma_min``.

    Sampling from ``sigma z`` gives x back but for the error of the solver.
    Source: Song et al. 2021, arXiv 2011.13456, section 4.3.
    """
    sigmas = karras(STEPS, sigma_min, sigma).flip(0)
    return last(probability_flow(model, x, sigmas, heun(), labels)) / sigma


def invert_by_search(
    model: Callable[..., Tensor], x: Tensor, sigma: float, labels: Tensor | None = None, steps: int = 200
) -> Tensor:
    """``z`` of length sqrt(D) whose image ``f(sigma z, sigma)`` is as near to x [B, ...] as Adam brings it.

    A consistency model has no ODE to follow back. Noise lies near the sphere of that radius, where the search stays.
    """
    x = x.float()
    free = Noise([0] * len(x)).normal(x.shape[1:]).to(x).requires_grad_()
    radius, sigmas = x[0].numel() ** 0.5, torch.tensor(sigma, dtype=torch.float64).expand(len(x))
    adam = torch.optim.Adam([free])

    def on_sphere() -> Tensor:
        lengths = free.flatten(1).norm(dim=1).view(-1, *[1] * (x.ndim - 1))
        return radius * free / lengths

    for step in range(steps):
        adam.param_groups[0]["lr"] = 0.1 * (1 - step / steps)
        adam.zero_grad()
        (model(sigma * on_sphere(), sigmas, labels) - x).square().mean().backward()
        adam.step()
    return on_sphere().detach()
