"""Exact likelihoods: how a volume changes along the probability flow.

``log p(x, t_0) = log p(x_1, t_1) + integral from t_0 to t_1 of div field(x_t, t) dt`` (Chen et al. 2018, arXiv
1806.07366; Song et al. 2021, arXiv 2011.13456, section 4.3). The field is that of the noise level, ``ode_field`` of
core/sampling/loops.py, or of native time, ``native_ode_field`` of core/sampling/sde.py.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from cmtool.core.noise import START, STEP, NoiseSource
from cmtool.core.solvers.solver import Field
from cmtool.errors import MissingAsset

__all__ = [
    "Integrator",
    "adaptive",
    "axis_probes",
    "bits_per_dim",
    "dequantize",
    "gaussian_probes",
    "log_likelihood",
    "log_normal",
    "rademacher_probes",
    "with_divergence",
]

Integrator = Callable[[Field, Tensor], Tensor]  # (field, y [B, n]) -> y at the other end


def gaussian_probes(noise: NoiseSource, shape: tuple[int, ...], n: int = 1) -> Tensor:
    """N(0, 1), [n, B, *shape]; draw k is stream STEP + k (Hutchinson 1989)."""
    return torch.stack([noise.normal(shape, STEP + k) for k in range(n)])


def rademacher_probes(noise: NoiseSource, shape: tuple[int, ...], n: int = 1) -> Tensor:
    """-1 or 1, [n, B, *shape]: of all probes those of least variance, none where the Jacobian is diagonal."""
    return torch.where(gaussian_probes(noise, shape, n) < 0, -1.0, 1.0)


def axis_probes(rows: int, shape: tuple[int, ...]) -> Tensor:
    """``sqrt(D) e_k``, [D, rows, *shape]: probes that give the trace itself, for points and very small images."""
    size = math.prod(shape)
    return (size**0.5 * torch.eye(size)).view(size, 1, *shape).expand(size, rows, *shape)


def with_divergence(field: Field, probes: Tensor) -> Field:
    """The field of ``y = (x, log-volume)``, flat [B, D + 1]; its last slope is ``mean_k e_k^T (d field/dx) e_k``."""
    shape = probes.shape[2:]

    def both(y: Tensor, t: Tensor) -> Tensor:
        with torch.enable_grad():
            x = y[:, :-1].unflatten(1, shape).detach().requires_grad_()
            slope = field(x, t)
        pulled = [torch.autograd.grad(slope, x, e.to(x), retain_graph=True)[0] * e.to(x) for e in probes]
        divergence = torch.stack(pulled).flatten(2).sum(2).mean(0)
        return torch.cat([slope.detach().flatten(1), divergence[:, None]], 1)

    return both


def adaptive(t: float, s: float, tolerance: float = 1e-5, method: str = "RK45") -> Integrator:
    """From time t to s with ``scipy.integrate.solve_ivp``, relative and absolute error ``tolerance``.

    All rows share their steps, so a row may change by about the tolerance with what is beside it.
    """

    def integrator(field: Field, y: Tensor) -> Tensor:
        try:
            from scipy.integrate import solve_ivp
        except ImportError:
            raise MissingAsset("adaptive steps need scipy, which is not installed", "pip install scipy") from None

        def flat(time: float, values) -> Tensor:
            at = torch.tensor(time, dtype=torch.float64, device=y.device)
            return field(torch.as_tensor(values).to(y.device).view(y.shape), at).flatten().cpu()

        found = solve_ivp(flat, (t, s), y.double().flatten().cpu(), method=method, rtol=tolerance, atol=tolerance)
        return torch.from_numpy(found.y[:, -1].copy()).view(y.shape).to(y.device)

    return integrator


def log_normal(x: Tensor, deviation: Tensor) -> Tensor:
    """``log N(x; 0, deviation^2)`` in nats, [B]; ``deviation`` is a number []."""
    return -(x**2 / deviation**2 + math.log(2 * math.pi) + 2 * deviation.log()).flatten(1).sum(1) / 2


@torch.no_grad()
def log_likelihood(
    field: Field, x: Tensor, integrator: Integrator, probes: Tensor, prior: Tensor
) -> tuple[Tensor, Tensor]:
    """``log p(x)`` in nats, [B], and the noise [B, ...] that x [B, ...] becomes at the end.

    ``probes`` [n, B, ...] estimate the divergence and stay the same at all times, so that the field is smooth;
    ``prior`` [] is the standard deviation at the end. Everything is float64.
    """
    y = torch.cat([x.flatten(1), x.new_zeros(len(x), 1)], 1).double()
    end = integrator(with_divergence(field, probes), y)
    z = end[:, :-1].unflatten(1, x.shape[1:])
    return log_normal(z, prior.to(z)) + end[:, -1], z


def bits_per_dim(log_density: Tensor, dimensions: int, width: float = 1 / 127.5) -> Tensor:
    """``-log2 p(x) / D - log2(width)``: bits for each value of an image whose grey levels are ``width`` apart.

    Ours are 1/127.5 apart, those of Score-SDE 1/128 in [-1, 1] and 1/256 in [0, 1], an offset of 7 and 8 bits.
    """
    return -log_density / (dimensions * math.log(2)) - math.log2(width)


def dequantize(images: Tensor, noise: NoiseSource) -> Tensor:
    """Grey levels uint8 [B, C, H, W] as densities need them: ``(u + U(-1/2, 1/2))/127.5 - 1``, float64.

    Source: Theis et al. 2016, arXiv 1511.01844, section 3.1.
    """
    uniform = torch.special.ndtr(noise.normal(images.shape[1:], START).to(images.device).double())
    return (images + uniform - 0.5) / 127.5 - 1
