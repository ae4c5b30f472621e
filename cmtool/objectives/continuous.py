"""One loss for consistency in continuous time: along a trajectory the output of a consistency model does not change.

    L = e^-u(sigma) E(y, dy/d ln sigma) + u(sigma),    d/d ln sigma along the velocity dx/dsigma

`velocity` is that of the noise of an image or of the teacher's ODE, `output` is what of the model is differentiated,
`derivative` says how, and `error` is E: how far the output is from being constant. `u` is learned beside the model, so
that all noise levels count alike, and thrown away; without it the loss is E.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

from cmtool.core.denoiser import Denoise, broadcast_like, ode_field
from cmtool.core.jvp import Derivative, central_difference, forward_mode
from cmtool.errors import unknown_name
from cmtool.objectives.noise_levels import NoiseLevels
from cmtool.objectives.objective import Batch, Objective, Requirements, same_dropout
from cmtool.options.plugin_option import Option

__all__ = [
    "Continuous",
    "Tangent",
    "TangentOption",
    "TangentRule",
    "build_derivative",
    "velocity_of_noise",
    "velocity_of_teacher",
]

TrajectoryVelocity = Callable[[Tensor, Batch, Tensor], Tensor]  # (x, batch, sigma) -> dx/dsigma
Output = Callable[[Denoise, Tensor, Tensor, Tensor | None], Tensor]  # (model, x, sigma, labels) -> y


@dataclass(frozen=True)
class Tangent:
    """A point of a trajectory and how the output changes there, [B, ...]; ``online`` is y with gradients."""

    x: Tensor
    sigma: Tensor  # [B]
    dx: Tensor  # dx / dsigma
    y: Tensor
    dy: Tensor  # dy / d ln sigma
    online: Tensor


def velocity_of_noise(x: Tensor, batch: Batch, sigma: Tensor) -> Tensor:
    """``z``, whose mean at x is the velocity of the ODE: an unbiased one when the data are the teacher."""
    return batch.z


def velocity_of_teacher(teacher: Denoise) -> TrajectoryVelocity:
    """``(x - D(x, sigma)) / sigma``, the velocity of the teacher's probability-flow ODE."""

    @torch.no_grad()
    def velocity(x: Tensor, batch: Batch, sigma: Tensor) -> Tensor:
        return ode_field(batch.condition(teacher), batch.labels)(x, sigma)

    return velocity


DERIVATIVES = {"jvp": forward_mode, "difference": central_difference(5e-3)}
TangentOption = Annotated[
    str, Option("how the derivative is found: exact (forward mode) or a central difference", choices=tuple(DERIVATIVES))
]


def build_derivative(name: str) -> Derivative:
    """Exact, "jvp", or by "difference", for networks that forward mode cannot pass; UsageError for others."""
    if name not in DERIVATIVES:
        raise unknown_name("tangent", name, DERIVATIVES)
    return DERIVATIVES[name]


@dataclass(frozen=True)
class TangentRule:
    """At which noise levels, along which velocity, of which output and how a tangent is found."""

    noise_levels: NoiseLevels
    velocity: TrajectoryVelocity
    output: Output
    derivative: Derivative


class Continuous(Objective):
    """The loss above, averaged over noise levels; ``head`` is u, a module called with ``ln(sigma) / 4`` [B].

    An image whose tangent is not finite has the loss nan, so that the log shows it, even where its gradient is finite.
    """

    def __init__(
        self,
        rule: TangentRule,
        error: Callable[[Tangent, float], Tensor],
        requirements: Requirements,
        head: nn.Module | None = None,
        teacher: nn.Module | None = None,
    ):
        super().__init__(requirements)
        self.noise_levels, self.velocity = rule.noise_levels, rule.velocity
        self.output, self.derivative = rule.output, rule.derivative
        self.error, self.head = error, head
        self.teacher = teacher  # held so that it moves to the device with the objective

    def trained(self) -> list[nn.Parameter]:
        return list(self.head.parameters()) if self.head else []

    def loss(self, model: Denoise, batch: Batch, progress: float) -> Tensor:
        tangent = self.tangent(model, batch)
        error = self.error(tangent, progress)
        lost = 0 * tangent.dy.detach().flatten(1).sum(1)  # nan where the tangent is not finite, and of no gradient
        if self.head is None:
            return error + lost
        u = self.head(tangent.sigma.log() / 4).to(error)
        return error * (-u).exp() + u + lost

    def tangent(self, model: Denoise, batch: Batch) -> Tangent:
        """The tangent at ``x_0 + sigma z``; every pass drops the same units."""
        sigma = self.noise_levels(batch.u)
        x = batch.x + broadcast_like(sigma, batch.x) * batch.z
        dx = self.velocity(x, batch, sigma)
        with same_dropout(x.device) as again:

            def output(x: Tensor, sigma: Tensor) -> Tensor:
                again()
                return self.output(model, x, sigma, batch.labels)

            y, dy = self.derivative(output, (x, sigma), (broadcast_like(sigma, x) * dx, sigma))
            online = y if y.requires_grad else output(x, sigma)
        return Tangent(x, sigma, dx, y.detach(), dy, online)
