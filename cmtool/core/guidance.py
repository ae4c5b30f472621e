"""Guidance: a denoiser pushed away from a weaker one, which is itself without the class or another network."""

import math
from collections.abc import Callable

from torch import Tensor, nn

from cmtool.core.denoiser import Denoise

__all__ = ["EVERYWHERE", "Guided", "Unlabelled", "cost"]

EVERYWHERE = (0.0, math.inf)


class Unlabelled(nn.Module):
    """The same denoiser, never told a class."""

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

    def __init__(self, model: Denoise, weak: Denoise, weight: float, interval: tuple[float, float] = EVERYWHERE):
        super().__init__()
        self.model, self.weak, self.weight, self.interval = model, weak, weight, interval

    def is_active(self, sigma: Tensor) -> Tensor:
        """Which levels are guided."""
        low, high = self.interval
        return (sigma > low) & (sigma <= high) & (self.weight != 1)

    def cost(self, sigma: Tensor) -> int:
        """The network evaluations of a call at these levels."""
        return 2 if self.is_active(sigma).any() else 1

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        plain = self.model(x, sigma, labels)
        sigma = sigma.expand(len(x))
        rows = self.is_active(sigma).nonzero()[:, 0]
        if not len(rows):
            return plain
        there = rows.to(x.device)
        weak = self.weak(x[there], sigma[rows], None if labels is None else labels[there])
        return plain.index_put((there,), weak + self.weight * (plain[there] - weak))


def cost(model: Denoise) -> Callable[[Tensor], int]:
    """The network evaluations that one call of a model takes, as a function of its levels."""
    return model.cost if isinstance(model, Guided) else lambda sigma: 1
