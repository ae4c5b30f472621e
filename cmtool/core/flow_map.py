"""Flow maps: networks that step from any noise level to any lower one. With the target 0 they are consistency models.

A network whose output is an image g, conditioned on the noise level s to which the step leads, becomes one by

    G(x, t, s) = (s/t) x + (1 - s/t) g(x, t, s)

At s = t it is the identity whatever g is, and at s = 0 it is g. Where s approaches t the exact g becomes the denoiser,
since ``dG/ds = (x - g)/t``. This is the trajectory model of Kim et al. 2023 (CTM, arXiv 2310.02279) and,
in other coordinates, the average velocity of MeanFlow (Geng et al. 2025, arXiv 2505.13447): objectives/meanflow.py.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from cmtool.core.denoiser import broadcast_like
from cmtool.core.noise import STEP, NoiseSource
from cmtool.core.sampling.loops import initial_noise
from cmtool.core.sigma_schedules import append_zero

__all__ = ["FlowMap", "GammaSampler", "flow_map_step"]

FlowMap = Callable[[Tensor, Tensor, Tensor | None, Tensor], Tensor]  # (x, sigma, labels, target_sigma) -> g


def flow_map_step(model: FlowMap, x: Tensor, t: Tensor, s: Tensor, labels: Tensor | None = None) -> Tensor:
    """``G(x, t, s)``: from x [B, ...] at noise levels t [B] above 0 to noise levels s [B] from 0 to t."""
    ratio = broadcast_like(s / t, x)
    return ratio * x + (1 - ratio) * model(x, t, labels, s)


@dataclass(frozen=True)
class GammaSampler:
    """A step below the next of ``sigmas``, noise up to it, and so on; the last step leads to 0. Yields x after each.

        x <- G(x, sigma_k, sqrt(1 - gamma^2) sigma_{k+1}) + gamma sigma_{k+1} z_{k+1}

    ``sigmas`` [K] descend. ``gamma`` 0 follows the ODE and needs no further noise; 1 is multistep consistency
    sampling. Source: Kim et al. 2023, arXiv 2310.02279 (gamma-sampling), with 0 for its epsilon.
    """

    sigmas: Tensor
    gamma: float

    @property
    def nfe(self) -> int:
        return len(self.sigmas)

    def begin(self, noise: NoiseSource, shape: tuple[int, ...]) -> Tensor:
        return initial_noise(noise, shape, self.sigmas[0])

    def __call__(
        self, model: Callable[..., Tensor], x: Tensor, noise: NoiseSource, labels: Tensor | None
    ) -> Iterator[Tensor]:
        for k, (t, s) in enumerate(pairwise(append_zero(self.sigmas)), 1):
            ends = torch.stack([t, math.sqrt(1 - self.gamma**2) * s]).to(x.device)
            x = flow_map_step(model, x, *ends.expand(len(x), 2).unbind(1), labels)
            if self.gamma and s > 0:
                x = x + broadcast_like(self.gamma * s, x) * noise.normal(x.shape[1:], STEP + k).to(x)
            yield x
