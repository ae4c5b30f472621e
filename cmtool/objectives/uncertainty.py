"""The published head of EDM2's loss, for whoever goes on training published weights."""

import math

import torch
from torch import Tensor, nn

__all__ = ["FourierLogVariance"]


class Waves(nn.Module):
    """``sqrt(2) cos(f c + p)``, ``f ~ 2 pi N(0, 1)``, ``p ~ U(0, 2 pi)``."""

    freqs: Tensor
    phases: Tensor

    def __init__(self, n: int, generator: torch.Generator):
        super().__init__()
        self.register_buffer("freqs", 2 * math.pi * torch.randn(n, generator=generator))
        self.register_buffer("phases", 2 * math.pi * torch.rand(n, generator=generator))

    def forward(self, c: Tensor) -> Tensor:
        return math.sqrt(2) * (c.to(self.freqs)[:, None] * self.freqs + self.phases).cos()


class Direction(nn.Module):
    """A linear map ``x -> x . w / |w|`` to one number."""

    def __init__(self, n: int, generator: torch.Generator):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(1, n, generator=generator))

    def _unit(self) -> Tensor:
        size = math.sqrt(self.weight.numel())
        return self.weight / (self.weight.norm() / size + 1e-4)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self._unit().squeeze(0) / math.sqrt(self.weight.numel())

    @torch.no_grad()
    def project(self) -> None:
        """Back to mean square 1, before each step."""
        self.weight.copy_(self._unit())


class FourierLogVariance(nn.Module):
    """``u(c)``, c = ln(sigma)/4, linear in ``n`` random waves; its weights are called as in the published files, after
    their ``logvar_``. Source: Karras et al. 2024, arXiv 2312.02696, eq. 75 and appendix B.
    """

    def __init__(self, n: int = 128):
        super().__init__()
        generator = torch.Generator().manual_seed(0)  # the same waves in every run
        self.fourier, self.linear = Waves(n, generator), Direction(n, generator)

    def forward(self, c: Tensor) -> Tensor:
        return self.linear(self.fourier(c))
