"""MeanFlow (Geng et al. 2025, arXiv 2505.13447, algorithm 1 and eq. 6): one-step generation by the average velocity."""

from collections.abc import Callable
from typing import Annotated

import torch
from torch import Tensor

from cmtool.core.denoiser import Preconditioning, broadcast_like
from cmtool.core.flow_map import FlowMap
from cmtool.core.jvp import forward_mode
from cmtool.objectives.noise_levels import PStdOption, log_normal, split_uniform
from cmtool.objectives.objective import (
    Batch,
    Objective,
    PreconditioningOption,
    Requirements,
    SigmaDataOption,
    SigmaMaxOption,
    same_dropout,
)
from cmtool.options.plugin_option import Option
from cmtool.options.types import at_least, between

__all__ = ["MeanFlow", "average_velocity", "meanflow"]

Times = Callable[[Tensor], tuple[Tensor, Tensor]]  # u [B] uniform on (0, 1) -> t, r with t >= r > 0


def average_velocity(model: FlowMap, z: Tensor, t: Tensor, r: Tensor, labels: Tensor | None = None) -> Tensor:
    """``u(z, t, r) = (z - g)/t`` of a flow map, whose step from time t to time r is MeanFlow's ``z - (t - r) u``.

    With ``z_t = (1 - t) x_0 + t e`` our noise levels are ``sigma = t/(1 - t)`` and ``s = r/(1 - r)``, and our
    ``x = z_t/(1 - t)``. Put ``u = (z_t - g)/t``; then

        z_r = z_t - (t - r)(z_t - g)/t = (r/t) z_t + (1 - r/t) g

    and, divided by 1 - r, since ``(1 - t)/(1 - r) r/t = s/sigma`` and ``(1 - r/t)/(1 - r) = 1 - s/sigma``,

        z_r/(1 - r) = (s/sigma) x + (1 - s/sigma) g = G(x, sigma, s)

    With the preconditioning "flow", ``g = z_t - t F``: the network's own output is u.
    """
    sigma, s = t / (1 - t), r / (1 - r)
    g = model(z / broadcast_like(1 - t, z), sigma, labels, s)
    return (z - g) / broadcast_like(t, z)


class MeanFlow(Objective):
    """``|u - sg(v - (t - r) du/dt)|^2 / sg(|.|^2 + c)^p``, summed over the image, with ``v = e - x_0``.

    ``du/dt = v du/dz + du/dt`` is the derivative along the path at fixed r. Differentiating ``(t - r) u``, the
    displacement, shows that the average velocity satisfies the identity in the mean over (x_0, e) given z_t; at r = t
    it is flow matching.
    """

    def __init__(self, times: Times, power: float, c: float, preconditioning: Preconditioning):
        super().__init__(Requirements("consistency", preconditioning=preconditioning, target_sigma=True))
        self.times, self.power, self.c = times, power, c

    def loss(self, model: FlowMap, batch: Batch, progress: float) -> Tensor:
        t, r = self.times(batch.u)
        velocity = batch.z - batch.x
        z = batch.x + broadcast_like(t, velocity) * velocity
        with same_dropout(z.device) as again:
            online = average_velocity(model, z, t, r, batch.labels)
            again()
            _, du_dt = forward_mode(
                lambda z, t: average_velocity(model, z, t, r, batch.labels), (z, t), (velocity, torch.ones_like(t))
            )
        target = velocity - broadcast_like(t - r, z) * du_dt
        error = torch.square(online - target).flatten(1).sum(1)
        return error / (error.detach() + self.c) ** self.power


def two_times(P_mean: float, P_std: float, share: float, sigma_max: float) -> Times:
    """Two logit-normal times, the later one t; a ``share`` of the pairs keeps its r, the others have r = t."""

    def times(u: Tensor) -> tuple[Tensor, Tensor]:
        *draws, which = split_uniform(u, 3)
        one, two = (
            log_normal(draw, P_mean, P_std).clamp(max=sigma_max) for draw in draws
        )  # ln sigma is the logit of t
        t, r = (sigma / (1 + sigma) for sigma in (torch.maximum(one, two), torch.minimum(one, two)))
        return t, torch.where(which < share, r, t)

    return times


def meanflow(
    *,
    P_mean: Annotated[float, Option("mean of the logit of the times, which is ln sigma")] = -2.0,
    P_std: PStdOption = 2.0,
    share: Annotated[float, Option("share of the pairs with r below t", between(0, 1))] = 0.75,
    power: Annotated[float, Option("p of the adaptive weight; 0: none", at_least(0))] = 0.75,
    c: Annotated[float, Option("c of the adaptive weight", at_least(0))] = 1.0,
    preconditioning: PreconditioningOption = "flow",
    sigma_max: SigmaMaxOption = 80.0,
    sigma_data: SigmaDataOption = 0.5,
) -> MeanFlow:
    """MeanFlow: the average velocity between two times of flow matching, as a flow map.

    Formula: ``loss = |u - sg(v - (t - r) du/dt)|^2 / sg(|.|^2 + c)^p``, ``v = z - x_0``
    Paper: Geng et al. 2025, arXiv 2505.13447, algorithm 1 and eq. 6.
    Use: long runs from random weights, for samples of one step or of any number of them.

    Defaults are the authors' for CIFAR-10, but for ``c``, 1e-3 there: the weight of an image falls with its own noise,
    which draws the minimum away from the mean where it has few pixels. On points 1 halves the error, and in the sum
    over an image it is lost. The authors augment images of CIFAR-10 as EDM does: --augment 0.12.
    """
    return MeanFlow(
        two_times(P_mean, P_std, share, sigma_max), power, c, Preconditioning.named(preconditioning, sigma_data)
    )
