"""The one network signature: ``model(x, sigma, labels) -> x_0``."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["TIMES", "Denoise", "Denoiser", "Preconditioning", "like"]

Denoise = Callable[[Tensor, Tensor, Tensor | None], Tensor]  # (x [B, ...], sigma [B], labels [B] or None) -> x_0


def like(value: Tensor, x: Tensor) -> Tensor:
    """A number per sample [B], or one for all [], shaped and typed to multiply ``x`` [B, ...]."""
    return value.to(x).reshape(-1, *[1] * (x.ndim - 1)) if value.ndim else value.to(x)


TIMES: dict[str, Callable[[Tensor, float], Tensor]] = {
    "log": lambda sigma, _: sigma.log() / 4,
    "log-1000": lambda sigma, _: 250 * (sigma + 1e-44).log(),
    "angle": lambda sigma, sigma_data: (sigma / sigma_data).atan(),
}


@dataclass(frozen=True)
class Preconditioning:
    """``D = c_skip x + c_out F(c_in x, c_noise)`` with unit-variance input and target of the network F.

        c_skip = sigma_data^2 / ((sigma - sigma_min)^2 + sigma_data^2)
        c_out  = (sigma - sigma_min) sigma_data / sqrt(sigma^2 + sigma_data^2), times ``sign``
        c_in   = 1 / sqrt(sigma^2 + sigma_data^2)
        c_noise = ln(sigma)/4 ("log"), 250 ln(sigma) ("log-1000") or atan(sigma/sigma_data) ("angle")

    ``sigma_min = 0`` is a denoiser (Karras et al. 2022, arXiv 2206.00364, table 1). A positive ``sigma_min`` makes
    ``D(x, sigma_min) = x`` exactly, the boundary of a consistency model (Song et al. 2023, arXiv 2303.01469, app. C).
    TrigFlow is the angle with F's sign flipped (Lu and Song 2024, arXiv 2410.11081, eq. 5).
    """

    sigma_data: float = 0.5
    sigma_min: float = 0.0
    time: str = "log"
    sign: float = 1.0

    @classmethod
    def trigflow(cls, sigma_data: float = 0.5) -> "Preconditioning":
        return cls(sigma_data, 0.0, "angle", -1.0)

    def __call__(self, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """``c_skip, c_out, c_in, c_noise`` of levels of any shape, in their precision."""
        above = sigma - torch.as_tensor(self.sigma_min, dtype=sigma.dtype)  # the same rounding as sigma: exactly 0
        total = (sigma**2 + self.sigma_data**2).sqrt()
        c_skip = self.sigma_data**2 / (above**2 + self.sigma_data**2)
        return c_skip, self.sign * above * self.sigma_data / total, 1 / total, TIMES[self.time](sigma, self.sigma_data)


class Denoiser(nn.Module):
    """A backbone and its preconditioning.

    A score model returns the mean of x_0, a consistency model the end of the ODE.
    """

    header: Any = None  # what the file says of a loaded model

    def __init__(self, net: nn.Module, preconditioning: Preconditioning):
        super().__init__()
        self.net, self.preconditioning = net, preconditioning

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        """``x`` [B, ...], ``sigma`` [B] or [], ``labels`` [B] int64 or None -> [B, ...] in the precision of ``x``.

        The network runs in the precision of its weights, everything around it in that of ``x``.
        """
        sigma = sigma.to(x.device).expand(len(x)) if sigma.ndim == 0 else sigma.to(x.device)
        c_skip, c_out, c_in, c_noise = self.preconditioning(sigma)
        weights = next(self.net.parameters(), x).dtype
        inside = self.net((like(c_in, x) * x).to(weights), c_noise.to(weights), labels)
        return like(c_skip, x) * x + like(c_out, x) * inside.to(x.dtype)
