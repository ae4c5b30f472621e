"""The one network signature: ``model(x, sigma, labels) -> x_0``."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from cmtool.core.discrete_processes import ddpm_sigmas, interpolated_step, nearest_step
from cmtool.core.process import VP, FlowMatching, SubVP
from cmtool.errors import unknown_name

__all__ = [
    "FORMS",
    "PARAMETERIZATIONS",
    "TARGET_DIM",
    "TIMES",
    "AugmentedDenoiser",
    "Denoise",
    "Denoiser",
    "Preconditioned",
    "Preconditioning",
    "broadcast_like",
    "encode_target",
    "ode_field",
]

Denoise = Callable[[Tensor, Tensor, Tensor | None], Tensor]  # (x [B, ...], sigma [B], labels [B] or None) -> x_0


def broadcast_like(value: Tensor, x: Tensor) -> Tensor:
    """A number per sample [B], or one for all [], shaped and typed to multiply ``x`` [B, ...]."""
    return value.to(x).reshape(-1, *[1] * (x.ndim - 1)) if value.ndim else value.to(x)


def ode_field(model: Denoise, labels: Tensor | None = None) -> Callable[[Tensor, Tensor], Tensor]:
    """The probability-flow ODE: ``dx/dsigma = (x - D(x, sigma)) / sigma`` (Karras et al. 2022, eq. 1 and 3)."""

    def field(x: Tensor, sigma: Tensor) -> Tensor:
        return (x - model(x, sigma.expand(len(x)), labels)) / broadcast_like(sigma, x)

    return field


@cache
def ddpm_linear_sigmas(steps: int, beta_min: float, beta_max: float) -> Tensor:
    """The noise levels of the linear DDPM, [steps], for networks conditioned on the number of the step."""
    return ddpm_sigmas(steps, beta_min=beta_min, beta_max=beta_max)


@cache
def ddpm_cosine_sigmas(steps: int, shift: float, most: float) -> Tensor:
    """The same of the cosine DDPM."""
    return ddpm_sigmas(steps, "cosine", shift=shift, most=most)


# c_noise: how a network is conditioned on the noise level; times ``time_scale`` and plus ``time_shift``.
TIMES: dict[str, Callable[[Tensor, "Preconditioning"], Tensor]] = {
    "log": lambda sigma, _: sigma.log() / 4,
    "log-1000": lambda sigma, _: 250 * (sigma + 1e-44).log(),
    "log-half": lambda sigma, _: (sigma / 2).log(),
    "level": lambda sigma, _: sigma,
    "angle": lambda sigma, p: (sigma / p.sigma_data).atan(),
    "vp": lambda sigma, p: VP(p.beta_min, p.beta_max).time(sigma),
    "subvp": lambda sigma, p: SubVP(p.beta_min, p.beta_max).time(sigma),
    "flow": lambda sigma, _: FlowMatching().time(sigma),
    "ddpm": lambda sigma, p: interpolated_step(sigma, ddpm_linear_sigmas(p.steps, p.beta_min, p.beta_max)),
    "ddpm-cosine": lambda sigma, p: interpolated_step(sigma, ddpm_cosine_sigmas(p.steps, p.cosine_shift, p.beta_limit)),
    "iddpm": lambda sigma, p: nearest_step(sigma, ddpm_cosine_sigmas(p.steps, p.cosine_shift, p.beta_limit)).to(sigma),
    "log-vp": lambda sigma, p: VP(p.beta_min, p.beta_max).time(sigma).log(),
    "log-subvp": lambda sigma, p: SubVP(p.beta_min, p.beta_max).time(sigma).log(),
}

# c_skip, c_out, c_in: what a network is given, and what it is to predict. ``above`` is sigma - sigma_min.
Form = Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor, Tensor]]
FORMS: dict[str, Form] = {
    "edm": lambda above, sigma, d: (
        d**2 / (above**2 + d**2),
        above * d / (sigma**2 + d**2).sqrt(),
        1 / (sigma**2 + d**2).sqrt(),
    ),
    "noise": lambda above, sigma, _: (torch.ones_like(sigma), -above, 1 / (sigma**2 + 1).sqrt()),
    "noise-subvp": lambda above, sigma, _: (torch.ones_like(sigma), -above, 2 / (sigma + (sigma**2 + 4).sqrt())),
    "score": lambda above, sigma, _: (torch.ones_like(sigma), above, torch.ones_like(sigma)),
    "score-1": lambda above, sigma, _: (torch.ones_like(sigma), above * sigma, torch.ones_like(sigma)),
    "velocity": lambda above, sigma, _: (1 / (1 + above), -above / (1 + above), 1 / (1 + sigma)),
}

# The parameterisations of the field, by the name of the process that they belong to.
PARAMETERIZATIONS: dict[str, dict[str, Any]] = {
    "edm": {},
    "trigflow": {"time": "angle", "sign": -1.0},
    "vp": {"form": "noise", "time": "vp", "time_scale": 4.0},
    "subvp": {"form": "noise-subvp", "time": "subvp", "time_scale": 4.0},
    "ddpm": {"form": "noise", "time": "ddpm", "time_scale": 0.004},
    "ve": {"form": "score", "time": "log-half", "time_scale": 0.25},
    "flow": {"form": "velocity", "time": "flow", "time_scale": 4.0},
    # Conditioned as published networks are; EDM's baselines are "vp-999", "ve-1" and "iddpm".
    "vp-999": {"form": "noise", "time": "vp", "time_scale": 999.0},
    "subvp-999": {"form": "noise-subvp", "time": "subvp", "time_scale": 999.0},
    "ve-1": {"form": "score", "time": "log-half"},
    "ddpm-1000": {"form": "noise", "time": "ddpm"},
    "ddpm-cosine-1000": {"form": "noise", "time": "ddpm-cosine"},
    "iddpm": {"form": "noise", "time": "iddpm"},
}


@dataclass(frozen=True)
class Preconditioning:
    """``D = c_skip x + c_out F(c_in x, c_noise)``: what the network F is given, and what it is to predict.

    | form        | c_skip                            | c_out                                | c_in                    |
    |-------------|-----------------------------------|--------------------------------------|-------------------------|
    | edm         | d^2 / ((sigma - e)^2 + d^2)       | (sigma - e) d / sqrt(sigma^2 + d^2)  | 1 / sqrt(sigma^2 + d^2) |
    | noise       | 1                                 | -(sigma - e)                         | 1 / sqrt(sigma^2 + 1)   |
    | noise-subvp | 1                                 | -(sigma - e)                         | s, sigma = 1/s - s      |
    | score       | 1                                 | sigma - e                            | 1                       |
    | score-1     | 1                                 | (sigma - e) sigma                    | 1                       |
    | velocity    | 1 / (1 + sigma - e)               | -(sigma - e) / (1 + sigma - e)       | 1 / (1 + sigma)         |

    with ``d = sigma_data``, ``e = sigma_min``; ``c_out`` is multiplied by ``sign``, and ``c_noise`` is the function of
    sigma called ``time`` in ``TIMES``, multiplied by ``time_scale``, plus ``time_shift``. ``sigma_min = 0`` is a
    denoiser: "edm" (Karras et al. 2022, arXiv 2206.00364, table 1) has unit variance at both ends of F; "noise"
    predicts z from the x_t of VP and DDPM, "noise-subvp" from that of sub-VP, "score" sigma times the score (ibid.),
    "score-1" the score itself, "velocity" the z - x_0 of flow matching. A positive ``sigma_min`` makes
    ``D(x, sigma_min) = x`` exactly, the boundary of a consistency model (Song et al. 2023, arXiv 2303.01469, app. C).
    TrigFlow is "edm" with the angle and F's sign flipped (Lu and Song 2024, arXiv 2410.11081, eq. 5).

    ``jumps`` says that F is a flow map, conditioned on the noise level that a step leads to (``core/flow_map.py``).
    ``beta_min`` and ``beta_max`` are those of the times of VP, sub-VP and the linear DDPM, ``cosine_shift`` and
    ``beta_limit`` of the cosine DDPM; both have ``steps`` discretization steps.
    """

    sigma_data: float = 0.5
    sigma_min: float = 0.0
    time: str = "log"
    sign: float = 1.0
    form: str = "edm"
    time_scale: float = 1.0
    jumps: bool = False
    beta_min: float = 0.1
    beta_max: float = 20.0
    steps: int = 1000
    cosine_shift: float = 0.008
    beta_limit: float = 0.999
    time_shift: float = 0.0

    @classmethod
    def named(cls, name: str, sigma_data: float = 0.5) -> "Preconditioning":
        """The parameterisation of "edm", "trigflow", "vp", "subvp", "ddpm", "ve" or "flow"; UsageError for others.

        ``time_scale`` brings c_noise to the range of a few units that our backbones' embeddings resolve; that of
        "vp-999", "subvp-999", "ve-1", "ddpm-1000", "ddpm-cosine-1000" and "iddpm" is the published networks' own.
        """
        if name not in PARAMETERIZATIONS:
            raise unknown_name("preconditioning", name, PARAMETERIZATIONS)
        return cls(sigma_data, **PARAMETERIZATIONS[name])

    @classmethod
    def trigflow(cls, sigma_data: float = 0.5) -> "Preconditioning":
        return cls.named("trigflow", sigma_data)

    def __call__(self, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """``c_skip, c_out, c_in, c_noise`` of noise levels of any shape, in their precision."""
        above = sigma - torch.as_tensor(self.sigma_min, dtype=sigma.dtype)  # the same rounding as sigma: exactly 0
        c_skip, c_out, c_in = FORMS[self.form](above, sigma, self.sigma_data)
        c_noise = self.time_scale * TIMES[self.time](sigma, self) + self.time_shift
        return c_skip, self.sign * c_out, c_in, c_noise


TARGET_DIM = 8  # numbers that encode the noise level to which a step leads


def encode_target(t: Tensor, s: Tensor) -> Tensor:
    """The conditioning of the network on the step from t to s, both [B]: [B, TARGET_DIM], all 0 where s = 0.

    ``p, sin(pi p), 1 - cos(pi p), sin(2 pi p)`` of ``p = s/t``, which differs between short and long steps, and of
    ``p = s/(1 + s)``, which says at which noise level a long one ends.
    """
    p = torch.stack([s / t, s / (1 + s)], 1)
    return torch.cat([p, (math.pi * p).sin(), 1 - (math.pi * p).cos(), (2 * math.pi * p).sin()], 1)


class Preconditioned(Protocol):
    """A denoiser that says what its network is given and predicts."""

    @property
    def preconditioning(self) -> Preconditioning: ...

    def __call__(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor: ...


class Denoiser(nn.Module):
    """A backbone and its preconditioning.

    A score model returns the mean of x_0, a consistency model the end of the ODE.
    """

    header: Any = None  # what the file says of a loaded model
    remarks: tuple[str, ...] = ()  # what a user should know of how it was read

    def __init__(self, net: nn.Module, preconditioning: Preconditioning):
        super().__init__()
        self.net, self.preconditioning = net, preconditioning

    def forward(
        self,
        x: Tensor,
        sigma: Tensor,
        labels: Tensor | None = None,
        target_sigma: Tensor | None = None,
        augment_labels: Tensor | None = None,
    ) -> Tensor:
        """``x`` [B, ...], ``sigma`` [B] or [], ``labels`` [B] int64 or None -> [B, ...] in the precision of ``x``.

        The network runs in the precision of its weights, everything around it in that of ``x``. ``target_sigma`` [B] is
        the noise level that a step of a flow map leads to, 0 when left out, ``augment_labels`` [B, K] say how training
        images were augmented. Each reaches the network only where it is given: others need not take it.
        """
        c_skip, c_out, _, _ = self.preconditioning(sigma.to(x.device))
        raw = self.raw_output(x, sigma, labels, target_sigma, augment_labels)
        return broadcast_like(c_skip, x) * x + broadcast_like(c_out, x) * raw

    def raw_output(
        self,
        x: Tensor,
        sigma: Tensor,
        labels: Tensor | None = None,
        target_sigma: Tensor | None = None,
        augment_labels: Tensor | None = None,
    ) -> Tensor:
        """``F(c_in x, c_noise)``, what the network itself predicts, in the precision of ``x``.

        Of a network that also predicts its variance, and so gives twice the channels, the first half is taken.
        """
        sigma = sigma.to(x.device).expand(len(x)) if sigma.ndim == 0 else sigma.to(x.device)
        _, _, c_in, c_noise = self.preconditioning(sigma)
        weights = next(self.net.parameters(), x).dtype
        conditions: dict[str, Tensor] = {}
        if augment_labels is not None:
            conditions["augment_labels"] = augment_labels.to(weights)
        if target_sigma is not None:
            conditions["target"] = encode_target(sigma, target_sigma.to(x.device)).to(weights)
        output = self.net((broadcast_like(c_in, x) * x).to(weights), c_noise.to(weights), labels, **conditions)
        return output[:, : x.shape[1]].to(x.dtype)


class AugmentedDenoiser:
    """A denoiser that is given the augment labels [B, K] of a batch, and is called like any other."""

    def __init__(self, model: Callable[..., Tensor], augment_labels: Tensor):
        self.model: Any = model
        self.augment_labels = augment_labels

    @property
    def preconditioning(self) -> Preconditioning:
        return self.model.preconditioning

    def __call__(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None, *target_sigma: Tensor) -> Tensor:
        return self.model(x, sigma, labels, *target_sigma, augment_labels=self.augment_labels)

    def raw_output(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        """``Denoiser.raw_output`` with the augment labels."""
        return self.model.raw_output(x, sigma, labels, augment_labels=self.augment_labels)
