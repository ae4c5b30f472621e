"""Guidance: a denoiser pushed away from a weaker one, which is itself without the class or another network."""

import math
from collections.abc import Callable

from torch import Tensor, nn

from cmtool.core.denoiser import Denoise, Preconditioned, Preconditioning

__all__ = ["EVERYWHERE", "Guided", "Unlabelled", "cost"]

EVERYWHERE = (0.0, math.inf)


class Unlabelled(nn.Module):
    """The same denoiser, always without a class."""

    def __init__(self, model: Denoise):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.model(x, sigma, None)


class Guided(nn.Module):
    """``D_weak + w (D - D_weak)`` where ``low < sigma <= high``, and D itself elsewhere.

    With ``Unlabelled(model)`` as the weak one this is classifier-free guidance (Ho and Salimans 2022, arXiv 2207.12598,
    eq. 6, whose weight is w - 1), and its score that of ``p(x|c)^w p(x)^(1-w)``. With a smaller or less trained network
    it is autoguidance (Karras et al. 2024, arXiv 2406.02507). The interval is that of Kynkaanniemi et al. 2024
    (arXiv 2404.07724). At w = 1, and outside the interval, the weak one is not evaluated and D comes out bit for bit.
    """

    def __init__(self, model: Preconditioned, weak: Denoise, weight: float, interval: tuple[float, float] = EVERYWHERE):
        super().__init__()
        self.model, self.weak, self.weight, self.interval = model, weak, weight, interval

    @property
    def preconditioning(self) -> Preconditioning:
        """That of the guided network, whose scale of data and noise is kept."""
        return self.model.preconditioning

    def is_active(self, sigma: Tensor) -> Tensor:
        """Which noise levels are guided, bool shaped as ``sigma``."""
        low, high = self.interval
        return (sigma > low) & (sigma <= high) & (self.weight != 1)

    def cost(self, sigma: Tensor) -> int:
        """The NFE of a call at these noise levels."""
        return 2 if self.is_active(sigma).any() else 1

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        plain = self.model(x, sigma, labels)
        sigma = sigma.expand(len(x))
        rows = self.is_active(sigma).nonzero()[:, 0]
        if not len(rows):
            return plain
        guided = rows.to(x.device)
        weak = self.weak(x[guided], sigma[rows], None if labels is None else labels[guided])
        return plain.index_put((guided,), weak + self.weight * (plain[guided] - weak))


def cost(model: Denoise) -> Callable[[Tensor], int]:
    """The NFE of one call of a model, as a function of its noise levels."""
    return model.cost if isinstance(model, Guided) else lambda sigma: 1
